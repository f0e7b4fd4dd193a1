"""Real processes under load: restarted in turn they lose no reply, killed they do nothing twice.

``FLEETBUS_TEST_SLOW=1`` repeats what takes long as often as a release wants it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import nats
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus, connect
from tests.bus.asking import Asker, asking, eventually
from tests.fleetbus.processes.running import Running, running

SLOW = bool(os.environ.get("FLEETBUS_TEST_SLOW"))
ROUNDS = 50 if SLOW else 5
COMMANDS = 5_000
CALLERS = 16
PACE = 0.02
"""Seconds between two requests of a caller: processes that start need their share of time."""


class Fleet:
    """Handler processes that may be ended and started again."""

    def __init__(self, stack: AsyncExitStack, urls: dict[str, str]) -> None:
        self._stack = stack
        self._urls = urls
        self.processes: list[Running] = []

    async def start(self) -> None:
        process = await self._stack.enter_async_context(running("serve", **self._urls))
        await process.said("serves")
        self.processes.append(process)

    async def replace_oldest(self, number: signal.Signals) -> int:
        """Start another process, then end the oldest; returns its status."""
        await self.start()
        return await self.end_oldest(number)

    async def end_oldest(self, number: signal.Signals) -> int:
        oldest = self.processes.pop(0)
        oldest.send(number)
        return await oldest.ended()


@asynccontextmanager
async def fleet(
    database_url: str, nats_url: str, size: int, **environment: str
) -> AsyncIterator[Fleet]:
    urls = {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "FLEETBUS_POOL_WRITE": "3",
        "FLEETBUS_POOL_READ": "2",
        **environment,
    }
    async with AsyncExitStack() as stack:
        processes = Fleet(stack, urls)
        for _ in range(size):
            await processes.start()
        yield processes


class Load:
    """Callers that ask without ever retrying, and count what they get."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask
        self._stopped = False
        self.answered = 0
        self.lost: list[str] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call())

    async def answers(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + count
        await eventually(lambda: self.answered >= wanted)

    def stop(self) -> None:
        self._stopped = True

    async def _call(self) -> None:
        while not self._stopped:
            try:
                got = await self._ask("db.tasks.create", {"name": "load"}, within=10)
            except (TimeoutError, nats.errors.NoRespondersError) as error:
                self.lost.append(repr(error))
            else:
                self.answered += 1
                if got.status != 200:
                    self.lost.append(got.data.decode())
            await asyncio.sleep(PACE)


class TestRestarts:
    async def test_in_turn_they_lose_no_reply(self, database_url: str, nats_url: str) -> None:
        async with fleet(database_url, nats_url, 2) as processes, asking(nats_url) as ask:
            load = Load(ask)
            running_ = asyncio.create_task(load.run())
            statuses = []
            for _ in range(ROUNDS):
                statuses.append(await processes.replace_oldest(signal.SIGTERM))
                await load.answers(10)
            load.stop()
            await running_

        assert load.lost == []
        assert statuses == [0] * ROUNDS

    async def test_the_last_one_answers_what_it_took(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """All requests that reached it are answered before it goes, and nothing ran unanswered."""
        async with fleet(database_url, nats_url, 1) as processes, asking(nats_url) as ask:
            asked = [
                asyncio.create_task(ask("db.tasks.create", {"name": f"{n}"}, within=5))
                for n in range(300)
            ]
            await ask.client.flush()
            assert await processes.end_oldest(signal.SIGTERM) == 0
            replies = await asyncio.gather(*asked, return_exceptions=True)

        answered = [reply for reply in replies if not isinstance(reply, BaseException)]
        assert {got.status for got in answered} <= {200}
        created = (await db.execute(text("SELECT count(*) FROM planning.tasks"))).scalar_one()
        assert created == len(answered)


class TestKilled:
    async def test_retried_commands_take_effect_once(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with (
            fleet(database_url, nats_url, 2) as processes,
            connect(nats_url, timeout=60, attempt_timeout=1) as bus,
        ):
            commands = asyncio.create_task(_create_all(bus))
            for share in (0.2, 0.4, 0.6):
                await eventually(partial(_created, db, share), within=60)
                await processes.end_oldest(signal.SIGKILL)
                await processes.start()
            names = await commands
            await eventually(lambda: _all_in_stream(bus, COMMANDS), within=30)

        assert names == [f"command {n}" for n in range(COMMANDS)]
        rows = await db.execute(text("SELECT name, version FROM planning.tasks"))
        assert sorted(rows.all()) == sorted((name, 1) for name in names)
        told = await db.execute(text("SELECT count(*), count(DISTINCT entity_id) FROM bus.outbox"))
        assert tuple(told.one()) == (COMMANDS, COMMANDS)


async def _create_all(bus: Bus) -> list[str]:
    places = asyncio.Semaphore(CALLERS)

    async def create(number: int) -> str:
        async with places:
            made = await bus.call(CreateTask(name=f"command {number}"), key=str(uuid7()))
            return made.name

    return list(await asyncio.gather(*(create(n) for n in range(COMMANDS))))


async def _created(db: AsyncConnection, share: float) -> bool:
    count: Any = (await db.execute(text("SELECT count(*) FROM planning.tasks"))).scalar_one()
    return bool(count >= share * COMMANDS)


async def _all_in_stream(bus: Bus, count: int) -> bool:
    state = (await bus.nats.jetstream().stream_info("EVENTS")).state
    assert state.messages <= count
    return bool(state.messages == count)
