"""Laws of what is done before a transaction, and of what is put on record."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bus.contract.refusals import DeclarationError
from bus.handling.shapes import HANDLERS
from fleetbus import domain
from tests.laws.declaring import CONTRACT, define, execute, forgotten


@dataclass(frozen=True)
class Hashed:
    """What is prepared."""

    digest: str


PREPARES = "@prepare\nasync def hash_it(command: WaveTask, *, db: AsyncConnection) -> {}: ...\n"
SLOWLY = PREPARES.format("Slow[Hashed]")

RIGHT = [
    f"{SLOWLY}@handler\nasync def wave_task(command: WaveTask, *, hashed: Hashed) -> Task: ...",
    (
        f"{PREPARES.format('Hashed')}@decider\n"
        "def wave_task(c: WaveTask, task: Task, *, hashed: Hashed) -> Decision[Task]: ..."
    ),
    (
        f"{SLOWLY}@handler\nasync def wave_task("
        "commands: Sequence[WaveTask], *, hashed: Sequence[Hashed]) -> list[Task | Refusal]: ..."
    ),
]

WRONG = [
    (
        f"{SLOWLY}@handler\nasync def wave_task(command: WaveTask) -> Task: ...",
        "wave_task: one parameter takes what is prepared: it is annotated Hashed",
    ),
    (
        (
            f"{SLOWLY}@handler\nasync def wave_task("
            "commands: Sequence[WaveTask], *, hashed: Hashed) -> list[Task | Refusal]: ..."
        ),
        "wave_task: one parameter takes what is prepared: it is annotated Sequence[Hashed]",
    ),
    (
        f"{SLOWLY}@together\ndef wave_task(command: WaveTask) -> list[GivenCommand]: ...",
        "wave_task: a together takes nothing that is prepared",
    ),
    (
        f"@handler\nasync def wave_task(command: WaveTask) -> Task: ...\n{SLOWLY}",
        "hash_it: it stands above the handler of WaveTask",
    ),
    (SLOWLY + SLOWLY, "hash_it: WaveTask is prepared already"),
    (PREPARES.format("Slow[bytes]"), "hash_it: it returns an object of a class of its own"),
    (PREPARES.format("None"), "hash_it: it returns an object of a class of its own"),
    (SLOWLY.replace("async ", ""), "hash_it: a preparation is async"),
    (SLOWLY.replace("WaveTask", "SeeTask"), "hash_it: SeeTask is a query"),
    (SLOWLY.replace("WaveTask", "Task"), "hash_it: its first parameter is annotated with an op"),
    (
        SLOWLY.replace("db: AsyncConnection", "emit: Emit"),
        "hash_it: emit is no dependency of a preparation (there are: db, now, settings, gateways",
    ),
]

REVEALS = '''
class WaveTask({}, subject="db.tasks.wave", secret={}, reveals=True,
               errors=(CredentialsUnreadable,)):
    """Wave."""

    id: TaskId
'''


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


@pytest.mark.parametrize("source", RIGHT)
def test_right_one_is_taken(source: str) -> None:
    define(source, Hashed=Hashed)
    [handling] = [one for one in HANDLERS.by_operation.values() if one.name == "wave_task"]
    assert handling.preparation is not None
    assert handling.preparation.name == "hash_it"
    assert (handling.prepared_as, handling.provided) == ("hashed", {})


@pytest.mark.parametrize(("source", "mend"), WRONG)
def test_wrong_one_is_refused_and_told_what_to_mend(source: str, mend: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        define(source, Hashed=Hashed)
    assert mend in str(refusal.value)


@pytest.mark.parametrize(("base", "secret"), [("Query[Task]", True), ("Command[Task]", False)])
def test_what_reveals_is_a_secret_command(base: str, secret: bool) -> None:
    with pytest.raises(DeclarationError, match="WaveTask reveals: it is a command with secret=Tr"):
        execute(REVEALS.format(base, secret), CONTRACT)


def test_what_reveals_is_put_on_record() -> None:
    wave = execute(REVEALS.format("Command[Task]", True), CONTRACT)["WaveTask"]
    source = "@handler\nasync def wave_task(command: WaveTask) -> Task: ..."
    execute(source, "handlers.planning.tasks", WaveTask=wave)
    with pytest.raises(DeclarationError, match="WaveTask reveals: its handler takes audit"):
        domain.registry()
