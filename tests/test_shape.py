"""What an operation costs in lines is counted from its sources, wherever they lie."""

from pathlib import Path

import pytest

from contracts.planning.tasks import CompleteTask, GetTask, ListTasks
from docs._shape import COLUMNS, Sources, cost

CONTRACT = '''
class CompleteTask(
    Command[Task],
    subject="db.tasks.complete",
):
    """Complete a task."""


class ListTasks(ListOf[Task], subject="db.tasks.list"):
    """List tasks."""


class GetTask(GetOf[Task], subject="db.tasks.get"):
    """Get a task."""
'''

HANDLER = """
from handlers.planning._rules import completed
from persistence.planning import tasks

@handler
async def complete_task(command, *, db):
    task = await tasks.lock(db, command.id)
    return completed(task)
"""

RULES = """
def completed(task):
    return with_status(task)

def with_status(task):
    return task
"""

QUERIES = """
from contracts.planning.tasks import ListTasks

_LOCKED = select(task)

async def lock(db, id_):
    return await db.execute(
        _LOCKED,
    )

def equal_to(column):
    return column

TASKS = Listing(
    ListTasks,
    equal_to("status"),
)
"""

TEST = """
class TestCompleteTask:
    def test_completed(self):
        pass
"""


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for name, text in {
        "contracts/planning/tasks.py": CONTRACT,
        "handlers/planning/tasks.py": HANDLER,
        "handlers/planning/_rules.py": RULES,
        "persistence/planning/tasks.py": QUERIES,
        "tests/planning/test_tasks.py": TEST,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(tmp_path)


def columns(numbers: tuple[int, ...]) -> dict[str, int]:
    return dict(zip([*COLUMNS, "all", "files"], numbers, strict=True))


def test_counts_what_the_function_calls_and_what_that_calls(sources: Sources) -> None:
    found = cost(CompleteTask, sources)
    assert found.subject == "db.tasks.complete"
    assert columns(found.numbers) == {
        "contract": 5,
        "function": 4,
        "rules": 2 + 2,
        "query": 1 + 4,
        "test": 3,
        "all": 21,
        "files": 5,
    }


def test_a_list_without_a_function_costs_its_listing(sources: Sources) -> None:
    found = columns(cost(ListTasks, sources).numbers)
    assert (found["function"], found["query"], found["files"]) == (0, 4 + 2, 2)


def test_what_its_declaration_answers_costs_that_alone(sources: Sources) -> None:
    found = columns(cost(GetTask, sources).numbers)
    assert found == dict.fromkeys(COLUMNS, 0) | {"contract": 2, "all": 2, "files": 1}
