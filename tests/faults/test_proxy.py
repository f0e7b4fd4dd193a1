"""The proxies: what they understand of the protocols, and what they do to connections."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.faults.nemeses import acknowledges, answers, commits, publishes
from tests.faults.proxy import Action, Link, Trap
from tests.faults.wires import Frame, NatsWire, PostgresRequests

EVENT = b"HPUB events.task.created.1 _INBOX.a.1 12 14\r\nNATS/1.0\r\n\r\n{}\r\n"
ACKNOWLEDGEMENT = b'MSG _INBOX.a.1 3 29\r\n{"stream":"EVENTS", "seq":17}\r\n'
NATS = b"PING\r\n" + EVENT + b"PUB db.x 0\r\n\r\n" + ACKNOWLEDGEMENT

STARTUP = struct.pack("!ii", 8, 80_877_103) + struct.pack("!ii", 9, 196_608) + b"\0"
INSERT = b"\0".join([b"s1", b"WITH e AS (INSERT INTO bus.outbox VALUES (1)) SELECT 1", b"\0\0"])


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


TELLING = [
    STARTUP,
    message(b"P", INSERT),
    message(b"Q", b"BEGIN; SET LOCAL lock_timeout = 1\0"),
    message(b"B", b"\0s1\0\0\0\0\0\0\0"),
    message(b"Q", b"COMMIT\0"),
    message(b"Q", b"BEGIN\0"),
    message(b"Q", b"COMMIT\0"),
]


class TestWires:
    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_nats_however_it_arrives(self, size: int) -> None:
        wire = NatsWire()
        pieces = [NATS[place : place + size] for place in range(0, len(NATS), size)]
        frames = [frame for piece in pieces for frame in wire.feed(piece)]
        assert b"".join(frame.raw for frame in frames) == NATS
        assert [frame.subject for frame in frames[1:]] == [
            "events.task.created.1", "db.x", "_INBOX.a.1",
        ]  # fmt: skip
        assert [publishes(frame) for frame in frames] == [False, True, False, False]
        assert [acknowledges(frame) for frame in frames] == [False, False, False, True]
        assert [answers(frame) for frame in frames] == [False, False, False, True]

    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_postgres_however_it_arrives(self, size: int) -> None:
        wire, sent = PostgresRequests(), b"".join(TELLING)
        pieces = [sent[place : place + size] for place in range(0, len(sent), size)]
        frames = [frame for piece in pieces for frame in wire.feed(piece)]
        assert b"".join(frame.raw for frame in frames) == sent
        assert [frame.commits for frame in frames[-4:]] == [False, True, False, True]
        assert [commits(frame) for frame in frames].count(True) == 1


@asynccontextmanager
async def session(database_url: str) -> AsyncIterator[tuple[Link, str]]:
    """A link to the database, and the URL that leads through it."""
    target = make_url(database_url)
    async with Link("test", "postgres", target.port or 0).running() as link:
        yield link, target.set(port=link.port).render_as_string(hide_password=False)


async def note(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute("BEGIN")
    await connection.execute("CREATE TABLE noted ()")
    await connection.execute("COMMIT")


def any_commit(frame: Frame) -> bool:
    return frame.commits


async def is_noted(database_url: str) -> bool:
    connection = await asyncpg.connect(database_url)
    try:
        return bool(await connection.fetchval("SELECT to_regclass('noted') IS NOT NULL"))
    finally:
        await connection.close()


class TestLink:
    @pytest.mark.parametrize(
        ("action", "kept"), [(Action.CUT_AFTER, True), (Action.CUT_BEFORE, False)]
    )
    async def test_a_commit_is_cut_off(self, database_url: str, action: Action, kept: bool) -> None:
        async with session(database_url) as (link, url):
            connection = await asyncpg.connect(url)
            trap = Trap("up", any_commit, action)
            link.arm(trap)
            with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
                await note(connection)
            assert trap.sprung_on is link

            async with asyncio.timeout(10):
                while link.server_ports:  # noqa: ASYNC110  only the link itself knows
                    await asyncio.sleep(0.01)
            assert await is_noted(database_url) is kept

    async def test_a_commit_is_held_until_it_is_released(self, database_url: str) -> None:
        async with session(database_url) as (link, url):
            connection = await asyncpg.connect(url)
            trap = Trap("up", any_commit, Action.HOLD)
            link.arm(trap)
            noting = asyncio.create_task(note(connection))
            await trap.sprung.wait()
            assert not await is_noted(database_url)

            link.disarm(trap)
            await noting

            assert await is_noted(database_url)
            await connection.close()

    async def test_a_frozen_link_delivers_when_it_thaws(self, database_url: str) -> None:
        async with session(database_url) as (link, url):
            connection = await asyncpg.connect(url)
            link.freeze()
            asking = asyncio.create_task(connection.fetchval("SELECT 1"))
            done, _ = await asyncio.wait({asking}, timeout=0.2)
            assert not done

            link.thaw()

            assert await asking == 1
            await connection.close()

    async def test_a_link_that_is_down_takes_nobody(self, database_url: str) -> None:
        async with session(database_url) as (link, url):
            link.down = True
            with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
                await asyncpg.connect(url, ssl=False)

            link.heal()

            await (await asyncpg.connect(url)).close()
