"""A TCP proxy that stands between two processes and does to their connection what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from tests.faults.wires import Frame, NatsWire, Opaque, PostgresRequests, Wire

CHUNK = 65_536

Protocol = Literal["nats", "postgres"]
Direction = Literal["up", "down"]
"""Up goes from the client to the server, down comes back."""


class Action(Enum):
    """What a trap does to the message that springs it."""

    SWALLOW = "it never arrives, and nobody notices"
    HOLD = "it and all behind it wait until they are released"
    PASS = "nothing: that it came by is all that is wanted"
    CUT_BEFORE = "the connection is cut, and it never arrives"
    CUT_AFTER = "it arrives, and the connection is cut before the answer to it comes back"


@dataclass(eq=False)
class Trap:
    """Waits for one message, on one link or on several."""

    direction: Direction
    matches: Callable[[Frame], bool]
    action: Action
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    sprung_on: Link | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Cut(Exception):
    """The connection ends here."""


class Link:
    """A port that leads to a server, until something is done to it."""

    def __init__(self, name: str, protocol: Protocol, target: int) -> None:
        self.name = name
        self.port = 0
        self.delay = 0.0
        """Seconds that each piece of data is late."""
        self.down = False
        """Whether new connections are refused."""
        self._protocol = protocol
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._traps: list[Trap] = []
        self._pipes: set[Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Link]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def server_ports(self) -> set[int]:
        """The ports from which the server sees the clients of this link come."""
        return {pipe.server_port for pipe in self._pipes}

    def cut(self) -> None:
        """Break every connection there is."""
        for pipe in self._pipes:
            pipe.abort()

    def freeze(self) -> None:
        """Let nothing through and tell nobody: a half-open connection."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let through what has waited, as a network does that has healed."""
        self._flowing.set()

    def arm(self, trap: Trap) -> None:
        """Do something to the next message that matches."""
        self._traps.append(trap)

    def disarm(self, trap: Trap) -> None:
        """Take a trap away, and release what it holds."""
        trap.released.set()
        if trap in self._traps:
            self._traps.remove(trap)

    def heal(self) -> None:
        """Be a plain link again."""
        self.delay = 0.0
        self.down = False
        for trap in self._traps:
            trap.released.set()
        self._traps.clear()
        self.thaw()

    def wires(self) -> tuple[Wire, Wire]:
        if self._protocol == "nats":
            return NatsWire(), NatsWire()
        return PostgresRequests(), Opaque()

    async def pass_on(self, direction: Direction, frame: Frame) -> Action | None:
        """Wait as long as the message has to, and tell what is to be done with it."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flowing.wait()
        for trap in self._traps:
            if trap.direction == direction and not trap.sprung.is_set() and trap.matches(frame):
                trap.sprung_on = self
                trap.sprung.set()
                if trap.action is Action.HOLD:
                    await trap.released.wait()
                return trap.action
        return None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._connect(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            return
        await self._flowing.wait()
        up = await asyncio.open_connection("127.0.0.1", self._target)
        pipe = Pipe(self, (reader, writer), up)
        self._pipes.add(pipe)
        try:
            await pipe.run()
        finally:
            self._pipes.discard(pipe)
            pipe.abort()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pipe:
    """One connection through a link."""

    def __init__(self, link: Link, client: Ends, server: Ends) -> None:
        self._link = link
        self._client = client
        self._server = server
        self._answer_lost = False
        self.server_port = int(server[1].get_extra_info("sockname")[1])

    def abort(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def run(self) -> None:
        """Carry both directions until one of them ends."""
        up, down = self._link.wires()
        pumps = [
            asyncio.create_task(self._pump("up", up, self._client[0], self._server[1])),
            asyncio.create_task(self._pump("down", down, self._server[0], self._client[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self._answer_lost:
                await asyncio.wait(pumps[1:])
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        direction: Direction,
        wire: Wire,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError, Cut):
            while data := await reader.read(CHUNK):
                if self._answer_lost:
                    # The server has answered, so it has done what it was asked.
                    return
                for frame in wire.feed(data):
                    await self._carry(direction, frame, writer)

    async def _carry(
        self, direction: Direction, frame: Frame, writer: asyncio.StreamWriter
    ) -> None:
        action = await self._link.pass_on(direction, frame)
        if action is Action.SWALLOW:
            return
        if action is Action.CUT_BEFORE:
            raise Cut
        if action is Action.CUT_AFTER:
            self._answer_lost = True
            self._client[1].transport.abort()
        writer.write(frame.raw)
        await writer.drain()
