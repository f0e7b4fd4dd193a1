"""The context of doors, bound beside the others for the tests that ask for it."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import OPERATIONS
from bus.handling.shapes import HANDLERS
from bus.running import failures
from bus.running.registry import Registry, _bind
from bus.storage import TABLES
from tests.laws.declaring import forgotten

with forgotten():
    from tests.bus.doors.contracts.doors import doors as _contracts
    from tests.bus.doors.handlers.doors import doors as _handlers
    from tests.bus.doors.persistence.doors import tables as _tables

    OWN = [
        _bind(operation, HANDLERS.by_operation[operation])
        for operation in OPERATIONS.values()
        if operation.__module__ == _contracts.__name__
    ]
    _held = TABLES.pop(_contracts.Door)

assert _handlers


def with_doors(registry: Registry) -> Registry:
    """The registry with the operations on doors."""
    own = {bound.subject: bound for bound in OWN}
    return replace(registry, operations=registry.operations | own)


async def make_doors(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tables, of which the bus knows as long as the test lasts."""
    monkeypatch.setitem(TABLES, _contracts.Door, _held)
    monkeypatch.setattr(failures, "Row", _tables.door)
    await db.execute(text("CREATE SCHEMA doors"))
    await db.run_sync(_tables.DOORS.create_all)
