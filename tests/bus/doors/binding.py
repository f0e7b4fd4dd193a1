"""The context of doors, bound beside the others for the tests that ask for it."""

import importlib
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import OPERATIONS
from bus.handling.shapes import HANDLERS
from bus.running import failures
from bus.running.registry import Registry, _bind
from bus.storage import TABLES
from bus.storage.tables import ENDS_WITH
from tests.laws.declaring import forgotten

with forgotten():
    from tests.bus.doors.contracts.doors.doors import Door
    from tests.bus.doors.contracts.doors.keys import Key
    from tests.bus.doors.persistence.doors import tables as _tables

    for module in ("doors", "keys"):
        importlib.import_module(f"tests.bus.doors.handlers.doors.{module}")
    OWN = [
        _bind(operation, HANDLERS.by_operation[operation])
        for operation in OPERATIONS.values()
        if operation.__module__.startswith("tests.bus.doors.contracts")
    ]
    [REACTION] = [
        one for one in HANDLERS.reactions if one.function.__module__.startswith(__package__)
    ]
    HELD = {entity: TABLES.pop(entity) for entity in (Door, Key)}
    for held in _tables.DOORS.tables:
        ENDS_WITH.pop(held, None)


def with_doors(registry: Registry) -> Registry:
    """The registry with the operations on doors."""
    own = {bound.subject: bound for bound in OWN}
    reactions = registry.reactions | dict.fromkeys(REACTION.events, (REACTION,))
    return replace(registry, operations=registry.operations | own, reactions=reactions)


async def make_doors(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tables, of which the bus knows as long as the test lasts."""
    for entity, held in HELD.items():
        monkeypatch.setitem(TABLES, entity, held)
    monkeypatch.setattr(failures, "Row", _tables.door)
    await db.execute(text("CREATE SCHEMA doors"))
    await db.run_sync(_tables.DOORS.create_all)
