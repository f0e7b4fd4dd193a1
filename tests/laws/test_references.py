"""No foreign key changes an entity unseen: the database's own catalogue against the tables."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.event import EVENTS
from bus.running.discovery import metadata
from bus.storage.presence import present
from bus.storage.tables import ENDS_WITH, ROOTS, TABLES
from fleetbus import domain

SCHEMAS = sorted({str(table.schema) for table in metadata("persistence").tables.values()})

KEYS = """
    SELECT n.nspname || '.' || t.relname AS table_name, c.conname AS name,
           m.nspname || '.' || r.relname AS target, c.confdeltype::text AS on_delete,
           c.confupdtype::text AS on_update,
           c.condeferrable AS deferrable, c.condeferred AS deferred
    FROM pg_constraint c
    JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_class r ON r.oid = c.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
    WHERE c.contype = 'f' AND c.conparentid = 0 AND n.nspname = ANY(:schemas)
"""
NO_ACTION, CASCADE = "a", "c"

NEVER_DELETED = {"check"}
"""Owners that no operation deletes: their rows are their parts."""


async def keys(db: AsyncConnection) -> list[Any]:
    return list((await db.execute(text(KEYS), {"schemas": SCHEMAS})).all())


def owners(table: str) -> set[str]:
    return {TABLES[owner].fullname for owner in ENDS_WITH.get(table, ())}


class TestForeignKeys:
    async def test_only_those_to_an_owner_cascade(self, db: AsyncConnection) -> None:
        found = await keys(db)
        assert {key.on_update for key in found} == {NO_ACTION}
        for key in found:
            asked = (key.on_delete, key.deferrable, key.deferred)
            owned = key.target in owners(key.table_name)
            assert asked == ((CASCADE, False, False) if owned else (NO_ACTION, True, True)), key

    async def test_each_owner_has_a_key(self, db: AsyncConnection) -> None:
        found = {(key.table_name, key.target) for key in await keys(db)}
        # A test may have declared tables of its own, that no migration makes.
        ours = {table for table in ENDS_WITH if ".probe_" not in table}
        declared = {(table, owner) for table in ours for owner in owners(table)}
        assert declared
        assert declared <= found


def parts_of(root: type[Entity]) -> set[type[Entity]]:
    """The entities that end with this one, or with what ends with it."""
    ends = {kind: set(ENDS_WITH.get(table.fullname, ())) for kind, table in TABLES.items()}
    found = {root}
    while further := {kind for kind, owners in ends.items() if owners & found} - found:
        found |= further
    return found


@pytest.mark.parametrize("root", sorted({root.entity for root in ROOTS.values()}, key=str))
def test_each_part_of_what_is_deleted_in_steps_names_it(root: type[Entity]) -> None:
    named = {kind for kind, found in ROOTS.items() if found.entity is root}
    assert named == parts_of(root)
    assert all(len(present(kind)) == 1 for kind in named)


@pytest.mark.parametrize("owner", sorted({e for es in ENDS_WITH.values() for e in es}, key=str))
def test_the_end_of_an_owner_is_told(owner: type[Entity]) -> None:
    noun = owner.noun
    domain.catalogue()
    assert (f"{noun}.deleted" in EVENTS) != (noun in NEVER_DELETED)
