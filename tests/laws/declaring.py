"""Declarations made in a test and forgotten after it: registration is global."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import bus.contract
import bus.handling
import bus.handling.shape
import bus.handling.shapes
import contracts.planning.tasks
from bus.contract.event import EVENTS
from bus.contract.operation import OPERATIONS
from bus.handling.shapes import HANDLERS
from bus.storage import KeyRing
from bus.storage.paging import LISTINGS
from fleetbus import domain

CONTRACT = "contracts.planning.tasks"
HANDLER = "handlers.planning.tasks"

TOYS = '''
class WaveTask(Command[Task], subject="db.tasks.wave"):
    """Wave."""

    id: TaskId


class SeeTask(Query[Task], subject="db.tasks.see"):
    """See."""

    id: TaskId


class SeeFleet(Query[Page[Task]], subject="db.tasks.fleet"):
    """See all."""
'''


@contextmanager
def forgotten() -> Iterator[None]:
    """What is declared and handled in the block is unknown again after it."""
    domain.catalogue()  # or what a test loads first would be forgotten with what it declares
    registers: list[dict[Any, Any]] = [OPERATIONS, EVENTS, HANDLERS.by_operation, LISTINGS]
    registers.append(HANDLERS.preparations)
    before = [dict(register) for register in registers]
    reactions = list(HANDLERS.reactions)
    try:
        yield
    finally:
        for register, known in zip(registers, before, strict=True):
            register.clear()
            register.update(known)
        HANDLERS.reactions[:] = reactions


def execute(source: str, module: str, **more: Any) -> dict[str, Any]:
    """What a module of this name defines if this is its text; it may use all our declarations."""
    names: dict[str, Any] = {}
    for known in (bus.contract.refusals, bus.contract.errors, bus.contract):
        names |= vars(known)
    for known in (contracts.planning.tasks, bus.handling.shape, bus.handling.shapes, bus.handling):
        names |= vars(known)
    names |= more | {"__name__": module}
    exec(source, names)
    return names


def define(source: str, module: str = HANDLER, **more: Any) -> None:
    """Run the text of a handler module."""
    declared = execute(TOYS, CONTRACT)
    operations = {name: declared[name] for name in ("WaveTask", "SeeTask", "SeeFleet")}
    more |= {"Annotated": Annotated, "KeyRing": KeyRing, "timedelta": timedelta}
    execute(source, module, Sequence=Sequence, **more, **operations)
