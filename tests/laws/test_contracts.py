"""Laws of the contracts: what may be declared, what must be said of it, what it may import."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic_core
import pytest

import contracts
from bus.contract.catalogue import Catalogue
from bus.contract.errors import EVERYWHERE
from bus.contract.model import built
from bus.contract.refusals import DeclarationError, Refusal
from bus.contract.schemas import definitions, example_of
from fleetbus import domain
from tests.laws.declaring import CONTRACT, execute, forgotten

TESTS = Path(__file__).parents[1]

PYDANTIC_ALONE = """
import sys

ALLOWED = {
    "bus", "contracts", "pydantic", "pydantic_core", "annotated_types", "typing_extensions",
    "typing_inspection", *sys.stdlib_module_names,
}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"contracts import {name}", name=name)


sys.meta_path.insert(0, Refuse())
from bus.contract.asyncapi import document
from bus.contract.catalogue import load
print(len(document(load("contracts"), "1.0.0")["operations"]))
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with forgotten():
        yield


@pytest.fixture
def catalogue() -> Catalogue:
    return domain.catalogue()


def refused(source: str, module: str = CONTRACT) -> str:
    with pytest.raises(DeclarationError) as refusal:
        execute(source, module)
    return str(refusal.value)


def test_contracts_need_pydantic_and_nothing_else() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PYDANTIC_ALONE],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 0


def keys_of(schema: Any) -> Iterator[str]:
    """The keys of all dicts in a schema."""
    if isinstance(schema, dict):
        yield from schema
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from keys_of(part)


class TestOperations:
    @pytest.mark.parametrize(
        ("bases", "said", "mend"),
        [
            ("Command[Task]", "", 'needs subject="db.<noun>.<verb>"'),
            ("Command[Task]", 'subject="tasks.wave"', "is not db.<noun>.<verb> in snake_case"),
            ("Command[Task]", 'subject="db.tasks.Wave"', "is not db.<noun>.<verb> in snake_case"),
            ("Command[Task]", 'subject="db.tasks.a.b"', "is not db.<noun>.<verb> in snake_case"),
            (
                "Command[Task]",
                'subject="db.phases.wave"',
                "operations on phases are declared in contracts/planning/phases.py, not in tasks",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.get"',
                "subject db.tasks.get is taken by GetTask; one subject is one operation",
            ),
            ("Command", 'subject="db.tasks.wave"', "needs its reply, a subclass of Reply"),
            ("Command[str]", 'subject="db.tasks.wave"', "needs its reply, a subclass of Reply"),
            (
                "Command[Task]",
                'subject="db.tasks.wave", errors=TaskNotFound',
                "errors is a tuple of classes",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.wave", errors=("task_not_found",)',
                "errors names 'task_not_found', not a subclass of Refusal",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.wave", errors=(KeyError,)',
                "not a subclass of Refusal",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.wave", errors=(Overloaded,)',
                "any operation may answer Overloaded; leave it out",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.wave", emits=(Task,)',
                "not a subclass of Event",
            ),
            (
                "Query[Task]",
                'subject="db.tasks.wave", emits=(TaskCompleted,)',
                "is a query and cannot emit events",
            ),
            (
                "Query[Task]",
                'subject="db.tasks.wave", vital=True',
                "is a query and cannot be vital",
            ),
            (
                "Command[Task]",
                'subject="db.tasks.wave", expensive=True',
                "is a command and cannot be expensive",
            ),
        ],
    )
    def test_wrong_one_is_refused_and_told_what_to_mend(
        self, bases: str, said: str, mend: str
    ) -> None:
        message = refused(f'class WaveTask({bases}, {said}):\n    """Wave."""\n    id: TaskId')
        assert message.startswith("WaveTask")
        assert mend in message

    def test_without_docstring_is_refused(self) -> None:
        message = refused('class WaveTask(Command[Task], subject="db.tasks.wave"):\n    id: TaskId')
        assert message == "WaveTask needs a docstring: it is the published documentation"

    def test_docstring_of_a_base_is_not_its_own(self) -> None:
        message = refused('class WaveTask(ListOf[Task], subject="db.tasks.wave"):\n    id: TaskId')
        assert "needs a docstring" in message

    @pytest.mark.parametrize("module", ["contracts.tasks", "contracts.planning.a.tasks", "app"])
    def test_out_of_place_is_refused(self, module: str) -> None:
        source = 'class WaveTask(Command[Task], subject="db.tasks.wave"):\n    """Wave."""'
        assert "its place is contracts/<context>/<noun>.py" in refused(source, module)

    def test_unknown_word_in_the_class_statement_is_refused(self) -> None:
        with pytest.raises(TypeError, match="retries"):
            execute(
                'class WaveTask(Command[Task], subject="db.tasks.wave", retries=3):\n    """W."""',
                CONTRACT,
            )


class TestEvents:
    @pytest.mark.parametrize(
        ("said", "body", "mend"),
        [
            ("", '"""Waved."""\n    task: Task', 'needs type="<entity>.<fact>", not None'),
            (
                'type="TaskWaved"',
                '"""Waved."""\n    task: Task',
                "needs type=\"<entity>.<fact>\", not 'TaskWaved'",
            ),
            (
                'type="task.waved"',
                '"""Waved."""\n    other: Task',
                "is an event of a task and has no field task",
            ),
            ('type="task.waved"', "task: Task", "needs a docstring"),
            (
                'type="task.completed"',
                '"""Waved."""\n    task: Task',
                "type task.completed is taken by TaskCompleted",
            ),
        ],
    )
    def test_wrong_one_is_refused_and_told_what_to_mend(
        self, said: str, body: str, mend: str
    ) -> None:
        message = refused(f"class TaskWaved(Event, {said}):\n    {body}")
        assert message.startswith("TaskWaved")
        assert mend in message

    def test_out_of_place_is_refused(self) -> None:
        source = 'class Waved(Event, type="task.waved"):\n    """Waved."""\n    task: Task'
        assert "its place is contracts/<context>/<noun>.py" in refused(source, "app.events")


class TestEntities:
    def test_without_its_refusal_is_refused(self) -> None:
        assert "needs not_found=" in refused('class Wave(Entity):\n    """A wave."""')


class TestErrors:
    @pytest.mark.parametrize(
        ("said", "body", "mend"),
        [
            ("", "id: TaskId", "needs a docstring: it is the error's title"),
            ("", '"""Gone."""\n    status_: str\n    detail_: str', "may not redefine"),
            (
                ', detail="{task} is gone"',
                '"""Gone."""\n    id: TaskId',
                "its detail names task, which is not among its details (id)",
            ),
        ],
    )
    def test_wrong_one_is_refused_and_told_what_to_mend(
        self, said: str, body: str, mend: str
    ) -> None:
        message = refused(f"class TaskGone(Conflict{said}):\n    {body}")
        assert message.startswith("TaskGone")
        assert mend in message


class TestCatalogue:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A further folder in which contexts are looked for."""
        monkeypatch.setattr(contracts, "__path__", [*contracts.__path__, str(tmp_path)])
        before = set(sys.modules)
        yield tmp_path
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def test_context_without_docstring_is_refused(self, elsewhere: Path) -> None:
        (elsewhere / "waves").mkdir()
        (elsewhere / "waves" / "__init__.py").touch()
        with pytest.raises(DeclarationError, match=r"waves/__init__\.py needs a docstring"):
            domain.catalogue()

    def test_noun_of_two_contexts_is_refused(self, elsewhere: Path) -> None:
        (elsewhere / "waves").mkdir()
        (elsewhere / "waves" / "__init__.py").write_text('"""Waves."""\n')
        (elsewhere / "waves" / "tasks.py").touch()
        with pytest.raises(DeclarationError, match="tasks is a noun of planning and of waves"):
            domain.catalogue()


def declared_errors(catalogue: Catalogue) -> set[type[Refusal]]:
    named = {error for o in catalogue.operations for error in o.declared.errors}
    return {*named, *EVERYWHERE}


class TestDeclared:
    def test_every_example_is_a_valid_request(self, catalogue: Catalogue) -> None:
        wrong = {}
        for operation in catalogue.operations:
            try:
                operation.model_validate_json(pydantic_core.to_json(example_of(operation)))
            except (ValueError, DeclarationError) as error:
                wrong[operation.__name__] = str(error)
        assert wrong == {}, "give these operations example="

    def test_error_types_are_unique(self, catalogue: Catalogue) -> None:
        types = Counter(error.type for error in declared_errors(catalogue))
        assert [kind for kind, count in types.items() if count > 1] == []

    def test_event_types_are_unique(self, catalogue: Catalogue) -> None:
        types = Counter(event.fact.type for event in catalogue.events)
        assert [kind for kind, count in types.items() if count > 1] == []

    def test_fields_of_events_are_written_as_any_value_of_their_type(
        self, catalogue: Catalogue
    ) -> None:
        """What lets an event be encoded without its own serializer."""
        built(*catalogue.events)
        schemas = {event.__name__: event.__pydantic_core_schema__ for event in catalogue.events}
        assert all("cls" in keys_of(schema) for schema in schemas.values())
        assert [n for n, schema in schemas.items() if "serialization" in keys_of(schema)] == []

    def test_endpoint_names_are_unique(self, catalogue: Catalogue) -> None:
        names = Counter(operation.declared.endpoint for operation in catalogue.operations)
        assert [name for name, count in names.items() if count > 1] == []

    def test_names_of_schemas_are_unique(self, catalogue: Catalogue) -> None:
        """Two classes of one name would be published under the names of their modules."""
        replies = {operation.declared.reply for operation in catalogue.operations}
        models = [*catalogue.operations, *replies, *catalogue.events]
        _, schemas = definitions(models, declared_errors(catalogue), "#/$defs/{model}")
        assert [name for name in schemas if "__" in name and "contracts" in name] == []
