"""Tables of secrets: each opens for its owner in its table alone; one job and one count for all."""

import base64
import logging
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.errors import CredentialsUnreadable
from bus.contract.refusals import DeclarationError
from bus.kit.ids import uuid7
from bus.storage.sealed import SEALED, KeyRing, SealedRow, SealedTable, count_by_key, rotate
from contracts.planning.tasks import Task, TaskNotFound
from fleetbus import domain
from tests.bus.asking import add_tasks

MADE = """
    CREATE TABLE planning.{name} (LIKE agents.credentials INCLUDING ALL);
    ALTER TABLE planning.{name} ADD FOREIGN KEY (id) REFERENCES planning.tasks ON DELETE CASCADE
"""

domain.registry()  # tables of secrets are declared after those of their owners


def ring(*names: str) -> KeyRing:
    keys = {name: base64.b64encode(name.encode().ljust(32)).decode() for name in names}
    return KeyRing.parse(",".join(f"{name}:{key}" for name, key in keys.items()))


OLD, BOTH = ring("old"), ring("new", "old")


class Tokens(SealedRow, owner=Task):
    __tablename__ = "probe_tokens"
    __table_args__ = {"schema": "planning"}  # noqa: RUF012  read by the mapper


class Secrets(SealedRow, owner=Task):
    __tablename__ = "probe_secrets"
    __table_args__ = {"schema": "planning"}  # noqa: RUF012  read by the mapper


TABLES: list[SealedTable] = [Tokens.sealed, Secrets.sealed]
# Known to this module's tests alone: no other database has them.
for one in TABLES:
    del SEALED[one.table.fullname]
    one.table.metadata.remove(one.table)


@pytest_asyncio.fixture(autouse=True)
async def made(db: AsyncConnection) -> AsyncIterator[None]:
    for one in TABLES:
        for statement in MADE.format(name=one.table.name).split(";"):
            await db.execute(text(statement))
        SEALED[one.table.fullname] = one
    yield
    for one in TABLES:
        del SEALED[one.table.fullname]


@pytest_asyncio.fixture
async def owners(db: AsyncConnection) -> list[UUID]:
    return await add_tasks(db, 3)


async def fill(db: AsyncConnection, owners: list[UUID]) -> None:
    for one in TABLES:
        for owner in owners:
            await one.keep(db, OLD, owner, f"{one.table.name} of {owner}".encode())


class TestSealedTable:
    async def test_kept_found_replaced_and_forgotten(
        self, db: AsyncConnection, owners: list[UUID]
    ) -> None:
        owner, tokens = owners[0], Tokens.sealed
        assert await tokens.find(db, OLD, owner) is None
        for plain in (b"first", b"second"):
            await tokens.keep(db, OLD, owner, plain)
            assert await tokens.find(db, OLD, owner) == plain

        row = (await db.execute(text("SELECT * FROM planning.probe_tokens"))).one()
        assert (row.id, row.version, row.key_id) == (owner, 2, "old")
        assert b"second" not in row.ciphertext

        await tokens.forget(db, owner)
        assert await tokens.find(db, OLD, owner) is None

    async def test_it_goes_with_its_owner(self, db: AsyncConnection, owners: list[UUID]) -> None:
        await fill(db, owners)

        await db.execute(text("DELETE FROM planning.tasks WHERE id = :id"), {"id": owners[0]})

        assert await count_by_key(db) == {"old": 4}

    async def test_what_is_copied_does_not_open(
        self, db: AsyncConnection, owners: list[UUID]
    ) -> None:
        """Neither for another owner nor in another table."""
        await Tokens.sealed.keep(db, OLD, owners[0], b"plain")
        copy = "INSERT INTO planning.probe_{} SELECT :id, version, created_at, updated_at, key_id, "
        copy += "nonce, ciphertext FROM planning.probe_tokens WHERE id = :of"
        for name, owner in (("secrets", owners[0]), ("tokens", owners[1])):
            await db.execute(text(copy.format(name)), {"id": owner, "of": owners[0]})

        for one, owner in ((Secrets.sealed, owners[0]), (Tokens.sealed, owners[1])):
            with pytest.raises(CredentialsUnreadable, match="is not the one that encrypted"):
                await one.find(db, OLD, owner)

    async def test_without_keys(self, db: AsyncConnection) -> None:
        with pytest.raises(CredentialsUnreadable, match="no key for credentials"):
            await Tokens.sealed.keep(db, KeyRing.parse(""), uuid7(), b"plain")


class TestRotate:
    async def test_all_tables_in_bounded_steps(
        self, db: AsyncConnection, owners: list[UUID]
    ) -> None:
        await fill(db, owners)
        assert await count_by_key(db) == {"old": 6}

        assert [await rotate(db, BOTH, limit=4) for _ in range(3)] == [4, 2, 0]

        assert await count_by_key(db) == {"new": 6}
        for one in TABLES:
            for owner in owners:
                plain = f"{one.table.name} of {owner}".encode()
                assert await one.find(db, ring("new"), owner) == plain

    async def test_what_cannot_be_read_is_told_and_keeps_nothing_else_back(
        self, db: AsyncConnection, owners: list[UUID], caplog: pytest.LogCaptureFixture
    ) -> None:
        await fill(db, owners)
        spoil = "UPDATE planning.probe_tokens SET ciphertext = '\\x00' WHERE id = :id"
        await db.execute(text(spoil), {"id": owners[0]})

        with caplog.at_level(logging.WARNING):
            assert await rotate(db, BOTH, limit=100) == 5

        assert f"probe_tokens of task {owners[0]}: the key old" in caplog.text
        assert await count_by_key(db) == {"new": 5, "old": 1}

    async def test_with_no_other_key_there_is_nothing_to_do(
        self, db: AsyncConnection, owners: list[UUID]
    ) -> None:
        await fill(db, owners)

        assert [await rotate(db, one, limit=9) for one in (OLD, ring(), ring("new"))] == [0, 0, 0]


def test_an_owner_without_a_table_is_refused() -> None:
    class Lost(Entity, not_found=TaskNotFound):
        pass

    with pytest.raises(DeclarationError, match="Lost belongs to a lost: no table holds one"):
        type("Lost", (SealedRow,), {"__tablename__": "lost"}, owner=Lost)


def test_the_tables_of_the_service() -> None:
    assert {*SEALED} - {one.table.fullname for one in TABLES} == {"agents.credentials"}
