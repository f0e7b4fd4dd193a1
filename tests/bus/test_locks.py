"""Advisory locks: one at a time for each name, until the transaction or the session is over."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.refusals import DeclarationError
from bus.storage.locks import LOCKS, AdvisoryLock
from tests.bus.asking import eventually
from tests.servers import connection_to

PROBE = AdvisoryLock("probe", "One at a time tries what a lock does.")
NUMBERED = AdvisoryLock("numbered probe", "One at a time tries it with a key.", key=-7)

CLOCK = text("SELECT clock_timestamp()")
WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


@pytest.mark.parametrize("lock", [PROBE, NUMBERED], ids=lambda lock: lock.name)
class TestAdvisoryLock:
    async def test_is_held_until_the_transaction_ends(
        self, lock: AdvisoryLock, db: AsyncConnection, database_url: str
    ) -> None:
        async with connection_to(database_url) as other, connection_to(database_url) as third:
            await other.exec_driver_sql("BEGIN")
            assert await lock.try_to_hold(other)
            assert await lock.is_held(db)
            assert not await lock.try_to_hold(db)
            waiting = asyncio.create_task(lock.hold(third))
            await eventually(lambda: db.scalar(WAITING))
            waited_at = await other.scalar(CLOCK)
            await other.exec_driver_sql("COMMIT")
            assert await waiting > waited_at
        assert await lock.try_to_hold(db)
        assert not await lock.is_held(db)

    async def test_is_owned_until_the_session_ends(
        self, lock: AdvisoryLock, db: AsyncConnection, database_url: str
    ) -> None:
        async with connection_to(database_url) as other:
            assert await lock.try_to_own(other)
            assert await lock.is_held(db)
            assert not await lock.try_to_own(db)
        assert await eventually(lambda: lock.try_to_own(db))


async def test_those_of_different_things_are_apart(db: AsyncConnection, database_url: str) -> None:
    async with connection_to(database_url) as other:
        assert await PROBE.try_to_own(other, "one")
        assert not await PROBE.try_to_own(db, "one")
        assert await PROBE.try_to_own(db, "two")
        assert await PROBE.try_to_own(db)


def test_nobody_takes_a_name_twice() -> None:
    with pytest.raises(DeclarationError, match="'probe' already"):
        AdvisoryLock("probe", "One at a time does something else.")
    assert LOCKS["probe"] is PROBE
