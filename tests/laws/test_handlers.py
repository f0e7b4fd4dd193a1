"""Laws of the handlers: a function that does not fit its declaration stops the process."""

from collections.abc import Iterator

import pytest

from bus.contract.refusals import DeclarationError
from bus.handling.shapes import HANDLERS
from fleetbus import domain
from tests.laws.declaring import CONTRACT, HANDLER, TOYS, define, execute, forgotten


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


RIGHT = [
    "@decider\ndef wave_task(command: WaveTask, task: Task) -> Decision[Task]: ...",
    "@handler\nasync def wave_task(command: WaveTask, *, db: AsyncConnection) -> Task: ...",
    "@handler\nasync def wave_task(command: WaveTask, *, db: AsyncConnection) -> Task | Kept: ...",
    (
        "@handler\nasync def wave_task(commands: Sequence[WaveTask], *, db: AsyncConnection)"
        " -> list[Task | Refusal | Kept]: ..."
    ),
    "@query\ndef see_task(query: SeeTask, task: Task) -> Task: ...",
    "@together\ndef wave_task(command: WaveTask) -> list[GivenCommand]: ...",
    "@query\nasync def see_fleet(query: SeeFleet, *, db: AsyncConnection) -> Page[Task]: ...",
    "@reaction\nasync def wave_back(told: Sequence[TaskCompleted]) -> None: ...",
    (
        "@reaction(emits=(TaskReady,))\n"
        "async def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ..."
    ),
    (
        "@reaction(about=lambda event: event.task.phase_id is None)\n"
        "async def wave_back(told: Sequence[TaskCompleted], *, db: AsyncConnection) -> None: ..."
    ),
]

RIGHT += [
    "@query\nasync def see_task(query: SeeTask, *, keys: KeyRing) -> Task: ...",
    (
        "@decider\ndef wave_task(command: WaveTask, task: Task, *, "
        "retention: Annotated[timedelta, Configured('retention')]) -> Decision[Task]: ..."
    ),
]

WRONG = [
    (
        "@query\ndef look(query: SeeTask, task: Task) -> Task: ...",
        "look: the handler of SeeTask is called see_task",
    ),
    (
        "@query\nasync def see_task(query: SeeTask, *, session: AsyncConnection) -> Task: ...",
        "no dependency of a query (there are: db, now, room, settings, gateways by their type)",
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
        "@decider\ndef wave_task(c: WaveTask, task: Task, *, keys: KeyRing) -> Decision[Task]: ...",
        "keys is no dependency of a decider (there are: new_id, now, settings)",
    ),
    (
        (
            "@query\ndef see_task(query: SeeTask, task: Task, *, "
            "retention: Annotated[timedelta, Configured('retention')]) -> Task: ..."
        ),
        "retention is no dependency of a lookup (there are: now)",
    ),
    (
        "@query\nasync def see_task(query: SeeTask, *, keys: KeyRing | None) -> Task: ...",
        "keys is no dependency of a query",
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
        "@query\ndef see_task(query: SeeTask, task: Task, *, room: int) -> Task: ...",
        "room is no dependency of a lookup",
    ),
    (
        "@query\ndef see_task(query: SeeTask) -> Task: ...",
        "a plain query takes the entity that its id or token names, first",
    ),
    (
        "@query\ndef see_fleet(query: SeeFleet, task: Task) -> Page[Task]: ...",
        "SeeFleet has no field id, nor one token, to find task by",
    ),
    (
        "@handler\nasync def wave_task(command: WaveTask, task: Task) -> Task: ...",
        "a handler is handed no entities: an async one fetches its own",
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
        "@together\ndef wave_task(command: WaveTask) -> Task: ...",
        "it returns list[GivenCommand], the commands in order",
    ),
    (
        "@query\ndef see_task(query: SeeTask, task: Task) -> LateResult: ...",
        "it returns Task, as declared",
    ),
    (
        "@query\nasync def see_task(query: SeeTask, *, db: AsyncConnection) -> Task | Kept: ...",
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
    (
        "@reaction\nasync def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ...",
        "it takes emit and declares no events",
    ),
    (
        (
            "@reaction(emits=(TaskReady,))\n"
            "async def wave_back(told: Sequence[TaskCompleted]) -> None: ..."
        ),
        "it declares events and takes no emit",
    ),
    (
        (
            "@reaction(emits=(Task,))\n"
            "async def wave_back(told: Sequence[TaskCompleted], *, emit: Emit) -> None: ..."
        ),
        "emits= is a tuple of declared events",
    ),
    (
        "@periodic(every=1.0, limit=1)\nasync def wave_all(*, emit: Emit, limit: int) -> int: ...",
        "it takes emit and declares no events",
    ),
    (
        "@handler\nasync def wave_task(command: WaveTask, *, emit: Emit) -> Task: ...",
        "it takes emit and declares no events",
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


def test_every_event_is_emitted_by_an_operation_a_reaction_or_a_job() -> None:
    emitters = domain.registry().emitters()
    assert emitters
    assert [event.fact.type for event, names in emitters.items() if not names] == []


def test_out_of_place_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"lies in handlers/planning/tasks\.py"):
        define(RIGHT[0], "handlers.planning.phases")


def test_operation_without_handler_stops_the_process() -> None:
    execute(TOYS, CONTRACT)
    with pytest.raises(DeclarationError, match="no handler for SeeFleet, SeeTask, WaveTask"):
        domain.registry()
