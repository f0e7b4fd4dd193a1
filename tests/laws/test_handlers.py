"""Laws of the handlers: a function that does not fit its declaration stops the process."""

from collections.abc import Iterator, Sequence
from typing import Literal

import pytest

from bus.contract.refusals import DeclarationError
from bus.handling.shapes import HANDLERS
from bus.storage import TABLES, Listing, equal
from contracts.health.schedules import ListSchedules, Schedule
from contracts.planning.tasks import Task
from fleetbus import domain
from tests.laws.declaring import CONTRACT, HANDLER, execute, forgotten

OPERATIONS = '''
class WaveTask(Command[Task], subject="db.tasks.wave"):
    """Wave."""

    id: TaskId


class SeeTask(Query[Task], subject="db.tasks.see"):
    """See."""

    id: TaskId


class SeeFleet(Query[Page[Task]], subject="db.tasks.fleet"):
    """See all."""
'''

SEES_ONE = '''
class SeeTask(GetOf[Task], subject="db.tasks.see"):
    """See one."""
'''

SEES_MANY = '''
class SeeTasks(ListOf[Task], subject="db.tasks.see"):
    """See many."""

    status: TaskStatus | None = None
'''

GHOST = '''
class Ghost(Entity, not_found=TaskNotFound):
    """What is kept nowhere."""
'''


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


def define(source: str, module: str = HANDLER) -> None:
    """Run the text of a handler module."""
    declared = execute(OPERATIONS, CONTRACT)
    operations = {name: declared[name] for name in ("WaveTask", "SeeTask", "SeeFleet")}
    execute(source, module, Sequence=Sequence, **operations)


RIGHT = [
    "@decider\ndef wave_task(command: WaveTask, task: Task) -> Decision[Task]: ...",
    "@handler\nasync def wave_task(command: WaveTask, *, db: AsyncConnection) -> Task: ...",
    "@query\ndef see_task(query: SeeTask, task: Task) -> Task: ...",
    "@query\nasync def see_fleet(query: SeeFleet, *, db: AsyncConnection) -> Page[Task]: ...",
    "@reaction\nasync def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ...",
    (
        "@reaction(about=lambda event: event.task.phase_id is None)\n"
        "async def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ..."
    ),
]

WRONG = [
    (
        "@query\ndef look(query: SeeTask, task: Task) -> Task: ...",
        "look: the handler of SeeTask is called see_task",
    ),
    (
        "@query\nasync def see_task(query: SeeTask, *, session: AsyncConnection) -> Task: ...",
        "no dependency of a query (there are: catalogue, db, keys, now, published, room)",
    ),
    (
        "@query\nasync def see_task(query: SeeTask, *, db: Task) -> Task: ...",
        "db is annotated <class 'sqlalchemy.ext.asyncio.engine.AsyncConnection'>",
    ),
    (
        "@decider\ndef wave_task(c: WaveTask, task: Task, *, db: int) -> Decision[Task]: ...",
        "db is no dependency of a decider",
    ),
    (
        "@handler\ndef wave_task(command: WaveTask, *, db: AsyncConnection) -> Task: ...",
        "a handler is async",
    ),
    (
        "@decider\nasync def wave_task(command: WaveTask, task: Task) -> Decision[Task]: ...",
        "a decider is a plain function, without I/O",
    ),
    (
        "@query\ndef see_task(query: SeeTask, *, now: datetime) -> Task: ...",
        "now is no dependency of a lookup",
    ),
    (
        "@query\ndef see_task(query: SeeTask) -> Task: ...",
        "a plain query takes the entity that its id names, and only that",
    ),
    (
        "@query\ndef see_fleet(query: SeeFleet, task: Task) -> Page[Task]: ...",
        "SeeFleet has no field task_id to find task by",
    ),
    (
        "@handler\nasync def wave_task(command: WaveTask, task: Task) -> Task: ...",
        "an async handler fetches its entities itself, through db",
    ),
    (
        "@decider\ndef wave_task(command: WaveTask, task: Task) -> Task: ...",
        "a decider returns Decision[Entity]",
    ),
    (
        "@handler\nasync def wave_task(commands: Sequence[WaveTask]) -> Task: ...",
        "of a sequence it returns list[Task | Refusal]",
    ),
    (
        "@handler\nasync def wave_task(commands: Sequence[WaveTask], *, emit: Emit) -> Task: ...",
        "emit is no dependency of a gathered handler",
    ),
    (
        "@query\ndef see_task(query: SeeTask, task: Task) -> LateResult: ...",
        "it returns Task, as declared",
    ),
    (
        "@query\ndef wave_task(query: WaveTask, task: Task) -> Task: ...",
        "WaveTask is a command",
    ),
    (
        "@decider\ndef see_task(command: SeeTask, task: Task) -> Decision[Task]: ...",
        "SeeTask is a query",
    ),
    (
        "@query\ndef see_task(query: SeeTask, task) -> Task: ...",
        "every parameter is annotated",
    ),
    (
        "@query\ndef see_task(query: Task, task: Task) -> Task: ...",
        "its first parameter is annotated with an operation",
    ),
    (
        "@decider\ndef wave_task(command: WaveTask, task: int) -> Decision[Task]: ...",
        "the parameter task is an entity or an entity | None",
    ),
    (
        "@handler\nasync def delete_task(command: DeleteTask, *, emit: Emit) -> TaskDeletion: ...",
        "DeleteTask has a handler already",
    ),
    (
        "@reaction\nasync def wave_back(told: TaskCompleted, *, emit: Emit) -> None: ...",
        "its first parameter is annotated Sequence[SomeEvent]",
    ),
    (
        "@reaction\nasync def wave_back(told: Sequence[Task], *, emit: Emit) -> None: ...",
        "its first parameter is a sequence of declared events",
    ),
    (
        "@reaction\nasync def wave_back(told: Sequence[TaskCompleted], emit: Emit) -> None: ...",
        "the dependency emit is keyword-only",
    ),
    (
        (
            "@reaction(where=Compiled('SELECT 1', ()))\n"
            "async def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ..."
        ),
        "what it needs to find has one parameter, ids",
    ),
]


@pytest.mark.parametrize("source", RIGHT)
def test_right_one_is_taken(source: str) -> None:
    before = len(HANDLERS.by_operation) + len(HANDLERS.reactions)
    define(source)
    assert len(HANDLERS.by_operation) + len(HANDLERS.reactions) == before + 1


@pytest.mark.parametrize(("source", "mend"), WRONG)
def test_wrong_one_is_refused_and_told_what_to_mend(source: str, mend: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        define(source)
    assert str(refusal.value).startswith(HANDLER)
    assert mend in str(refusal.value)


def test_out_of_place_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"lies in handlers/planning/tasks\.py"):
        define(RIGHT[0], "handlers.planning.phases")


class TestDeclared:
    """A GetOf and a ListOf need no function: of each, what they need instead."""

    @pytest.mark.parametrize("field", ["id: Name", "id: Id | None = None", "task_id: Id"])
    def test_get_wants_the_id_of_its_entity(self, field: str) -> None:
        with pytest.raises(DeclarationError, match="needs the field id, required, as Task has it"):
            execute(f"{SEES_ONE}\n    {field}", CONTRACT)

    def test_get_wants_its_entity(self) -> None:
        with pytest.raises(DeclarationError, match=r"SeeTask needs its entity: GetOf\[Task\]"):
            execute(SEES_ONE.replace("GetOf[Task]", "GetOf"), CONTRACT)

    def test_get_says_the_refusal_of_its_entity(self) -> None:
        see = execute(f"{SEES_ONE}\n    id: Id", CONTRACT)["SeeTask"]
        assert see.declared.errors == (Task.not_found,)
        assert see.declared.reply is Task

    def test_get_of_what_no_table_holds_stops_the_process(self) -> None:
        execute(f"{GHOST}\n{SEES_ONE.replace('Task]', 'Ghost]')}\n    id: Id", CONTRACT)
        with pytest.raises(DeclarationError, match="SeeTask needs a ghost: no table holds one"):
            domain.registry()

    def test_list_without_listing_stops_the_process(self) -> None:
        execute(SEES_MANY, CONTRACT)
        with pytest.raises(DeclarationError, match=r"no handler for SeeTasks \(.* with a Listing"):
            domain.registry()

    def test_list_is_answered_by_its_listing(self) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        Listing(see, equal(TABLES[Task], "status"))
        handling = domain.registry().operations["db.tasks.see"].handling
        assert handling.shape == "query"
        assert handling.dependencies == {"db"}

    @pytest.mark.parametrize("filtered", [[], ["status", "priority"]])
    def test_listing_has_a_condition_for_each_field(self, filtered: list[str]) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="and its fields differ in"):
            Listing(see, equal(TABLES[Task], *filtered))

    def test_listing_orders_by_columns(self) -> None:
        order = "Literal['-colour'] = '-colour'"
        see = execute(f"{SEES_MANY}\n    order: {order}", CONTRACT, Literal=Literal)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks orders by colour: no such column"):
            Listing(see, equal(TABLES[Task], "status"))

    def test_listing_of_what_no_table_holds_is_refused(self) -> None:
        see = execute(f"{GHOST}\n{SEES_MANY.replace('Task]', 'Ghost]')}", CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks lists what no table holds"):
            Listing(see)

    def test_listing_lies_within_what_the_id_names(self) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks has no id that its list lies within"):
            Listing(see, equal(TABLES[Task], "status"), within=Task)

    def test_there_is_one_listing(self) -> None:
        with pytest.raises(DeclarationError, match="ListSchedules has a Listing already"):
            Listing(ListSchedules, equal(TABLES[Schedule], "enabled"))


def test_operation_without_handler_stops_the_process() -> None:
    execute(OPERATIONS, CONTRACT)
    with pytest.raises(DeclarationError, match="no handler for SeeFleet, SeeTask, WaveTask"):
        domain.registry()
