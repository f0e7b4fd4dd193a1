"""Our client is closed, and says so, in whatever state its connection is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from nats.aio.msg import Msg
from sqlalchemy.engine import make_url

from bus.kit.nats_io import flush
from fleetbus.client.connection import closing
from fleetbus.client.connection.client import SteadyClient, connect
from tests.bus.asking import eventually
from tests.faults.proxy import Link

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Loop = Callable[[], asyncio.AbstractEventLoop]

MUCH = 900_000
"""Bytes of a message; a few of them are more than what lies between two processes."""


class Ending:
    """A client behind a link of its own, with what it told of its end."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.client: SteadyClient
        self.told: list[str] = []
        self.callbacks: list[asyncio.Task[Any]] = []

    async def connect(self, url: str) -> None:
        self.client = await connect(
            make_url(url).set(host="127.0.0.1", port=self.link.port).render_as_string(False),
            reconnect_time_wait=0.05,
            disconnected_cb=self._disconnected,
            closed_cb=self._closed,
        )
        subscription = await self.client.subscribe("facts.>", cb=self._take)
        self.callbacks.append(subscription._wait_for_msgs_task)  # type: ignore[arg-type]  # it has begun
        await flush(self.client)

    async def lose(self) -> None:
        """The connection is lost, and no other one is made."""
        self.link.down = True
        self.link.cut()
        await eventually(lambda: "disconnected" in self.told)

    async def fill(self) -> None:
        """The server reads nothing any more, and more is sent than lies between."""
        self.link.freeze()
        await eventually(self._is_full)

    async def _is_full(self) -> bool:
        if self.client.pending_data_size == 0:
            await self.client.publish("facts.much", b"." * MUCH)
            return False
        writer = self.client._transport._io_writer  # type: ignore[union-attr]  # there is a connection
        return bool(writer.transport.get_write_buffer_size() > 0)

    def is_over(self) -> bool:
        tasks = [*self.client._own_tasks(), *self.callbacks]
        return self.client.is_closed and all(task.done() for task in tasks)

    async def _disconnected(self) -> None:
        self.told.append("disconnected")

    async def _closed(self) -> None:
        self.told.append("closed")

    async def _take(self, _: Msg) -> None: ...


@asynccontextmanager
async def ending(url: str) -> AsyncIterator[Ending]:
    """It has to be over within the block."""
    async with Link("client", "nats", make_url(url).port or 0).running() as link:
        made = Ending(link)
        await made.connect(url)
        async with asyncio.timeout(10):
            yield made
            await eventually(made.is_over)
            assert made.told.count("closed") == 1


async def on(loop: Loop, work: Coroutine[Any, Any, None]) -> None:
    """Do this on a loop of that kind: they differ in what a lost connection raises."""

    def run() -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(work)

    await asyncio.to_thread(run)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "CLOSED_WITHIN", 0.2)


@pytest.mark.parametrize("loop", LOOPS)
class TestClose:
    async def test_while_it_looks_for_its_server_with_something_to_send(
        self, nats_url: str, loop: Loop
    ) -> None:
        async def close() -> None:
            async with ending(nats_url) as it:
                await it.lose()
                await it.client.publish("facts.late", b"")
                await it.client.close()

        await on(loop, close())

    async def test_in_the_moment_in_which_the_connection_breaks(
        self, nats_url: str, loop: Loop
    ) -> None:
        async def close() -> None:
            async with ending(nats_url) as it:
                await it.client.publish("facts.late", b"")
                it.client._abort()
                await it.client.close()

        await on(loop, close())

    @pytest.mark.usefixtures("soon")
    async def test_when_the_server_reads_nothing(self, nats_url: str, loop: Loop) -> None:
        async def close() -> None:
            async with ending(nats_url) as it:
                await it.fill()
                await it.client.publish("facts.late", b"." * MUCH)
                await it.client.close()

        await on(loop, close())


@pytest.mark.parametrize("loop", LOOPS)
class TestDrain:
    async def test_what_was_sent_still_arrives(self, nats_url: str, loop: Loop) -> None:
        async def drain() -> None:
            async with ending(nats_url) as it, ending(nats_url) as other:
                heard = await it.client.subscribe("facts.>")
                await flush(it.client)
                await other.client.publish("facts.last", b"the last one")
                await other.client.drain()
                assert (await heard.next_msg(timeout=5)).data == b"the last one"
                await it.client.drain()

        await on(loop, drain())

    async def test_without_a_connection_it_is_closed(self, nats_url: str, loop: Loop) -> None:
        async def drain() -> None:
            async with ending(nats_url) as it:
                await it.lose()
                await it.client.publish("facts.late", b"")
                await it.client.drain()

        await on(loop, drain())

    async def test_a_connection_that_is_lost_meanwhile(self, nats_url: str, loop: Loop) -> None:
        async def drain() -> None:
            async with ending(nats_url) as it:
                it.link.freeze()
                draining = asyncio.create_task(it.client.drain())
                await eventually(lambda: it.client.is_draining)
                it.link.down = True
                it.link.cut()
                await draining

        await on(loop, drain())
