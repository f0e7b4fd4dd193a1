"""Schedules made for one mistake each: the sound code passes the very same ones.

Both without the reconciler: it would bring back what a mistake loses, and the sound code has to
do without it. Nothing here is given up because the machine is slow.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fleetbus.server.relay.relay import RECONCILE_SUBJECT
from tests.faults.checker import Violation, check
from tests.faults.fleet import Fleet, Handler, fleet
from tests.faults.history import Exchange, Fault, Recorder
from tests.faults.nemeses import acknowledges, commits, end_sessions, publishes
from tests.faults.nodes import DUPLICATE_WINDOW, connected, make_stream
from tests.faults.observing import REST_LIMIT, keep_outages, length
from tests.faults.proxy import Action, Direction, Link, Trap
from tests.faults.rounds import keep_logs, settle
from tests.faults.wires import Frame
from tests.faults.workload import Asked, Caller, callers

WAIT = 60.0
"""Seconds for what has to happen, on a machine however slow."""

DEADLINE = 60.0
"""Seconds that a request gives the service: none is given up because a COMMIT is held."""

PATIENCE = 10.0
"""Seconds after which a request is sent again."""

LIMIT = 3.0
"""Seconds for coming to rest with a mistake: what is lost for ever need not be waited for."""

ATTEMPTS = 5
"""How often what can go wrong on a slow machine is tried."""

STAYS = 2.0
"""Seconds in which it is seen that a sound process does not leave what it has in hand."""


class Stage:
    """What a directed schedule works with: the fleet, and one client whose every step it says."""

    def __init__(
        self,
        running: Fleet,
        caller: Caller,
        recorder: Recorder,
        events: Callable[[], Awaitable[int]],
        *,
        sound: bool,
    ) -> None:
        self.fleet = running
        self._caller = caller
        self._recorder = recorder
        self._sound = sound
        self._events = events
        self._count = 0
        self._open: list[asyncio.Task[Exchange]] = []

    async def create(self, *, keyed: bool = True) -> Exchange:
        """Create a task, sending until it is known what became of it."""
        self._count += 1
        name = f"<{self._count}>"
        key = f"key {self._count}" if keyed else None
        asked = Asked("db.tasks.create", {"name": name}, name, key)
        for _ in range(5 if keyed else 1):
            exchange = await self._caller.send(asked)
            if exchange.outcome == "ok":
                break
        return exchange

    async def told(self) -> None:
        """Create a task, and wait until its event is in the stream."""
        before = await self._events()
        self._open.append(asyncio.create_task(self.create()))
        async with asyncio.timeout(WAIT):
            while await self._events() <= before:  # noqa: ASYNC110  the server tells, and only when asked
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def trap(
        self,
        links: Sequence[Link],
        direction: Direction,
        matches: Callable[[Frame], bool],
        action: Action,
        *,
        excuses: bool = False,
    ) -> AsyncIterator[Trap]:
        """One trap on several links: it springs once; what it holds is released at the end.

        It excuses what gets no answer if answers take the way that it cuts.
        """
        trap, began = Trap(direction, matches, action), time.monotonic()
        for link in links:
            link.arm(trap)
        try:
            yield trap
        finally:
            for link in links:
                link.disarm(trap)
            where = ", ".join(link.name for link in links)
            self._recorder.fault(Fault(action.name, where, began, time.monotonic(), excuses))

    async def left(self, handler: Handler) -> None:
        """Wait until a process has left NATS; a sound one does not, and is not waited for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STAYS if self._sound else WAIT):
                while _ports(handler):  # noqa: ASYNC110  nobody tells that a connection has ended
                    await asyncio.sleep(0.02)

    async def done(self) -> None:
        """Wait for what was begun."""
        await asyncio.gather(*self._open)

    @property
    def to_postgres(self) -> list[Link]:
        return [handler.postgres for handler in self.fleet.handlers]


Schedule = Callable[[Stage], Awaitable[None]]


async def sprung(trap: Trap) -> None:
    async with asyncio.timeout(WAIT):
        await trap.sprung.wait()


async def late_commit(stage: Stage) -> None:
    """A transaction commits when later ones have long been published."""
    async with stage.trap(stage.to_postgres, "up", commits, Action.HOLD) as trap:
        held = asyncio.create_task(stage.create())
        await sprung(trap)
        for _ in range(3):
            await stage.told()
    await held


async def lost_commit(stage: Stage) -> None:
    """The connection breaks before COMMIT arrives."""
    async with stage.trap(stage.to_postgres, "up", commits, Action.CUT_BEFORE) as trap:
        await stage.create()
        assert trap.sprung.is_set()


async def lost_answer(stage: Stage) -> None:
    """The connection breaks when COMMIT has arrived, before its answer is back."""
    async with stage.trap(stage.to_postgres, "up", commits, Action.CUT_AFTER) as trap:
        await stage.create()
        assert trap.sprung.is_set()


async def lost_publish(stage: Stage) -> None:
    """The connection breaks when the relay publishes."""
    await stage.told()
    relay = await stage.fleet.leader()
    async with stage.trap(relay.nats, "up", publishes, Action.CUT_BEFORE, excuses=True) as trap:
        await stage.create()
        await sprung(trap)


async def restart_at_work(stage: Stage) -> None:
    """A process is told to stop while it has a request in hand."""
    async with stage.trap(stage.to_postgres, "up", commits, Action.HOLD) as trap:
        held = asyncio.create_task(stage.create(keyed=False))
        await sprung(trap)
        [busy] = [handler for handler in stage.fleet.handlers if trap.sprung_on is handler.postgres]
        busy.send(signal.SIGTERM)
        await busy.says("stopping")
        await stage.left(busy)
    await busy.ended()
    await held


async def late_publish(stage: Stage) -> None:
    """A publish arrives when another relay has taken over and published the same."""
    for _ in range(ATTEMPTS):
        if await _publish_late(stage):
            return
    raise AssertionError("no publish that was held has arrived")


async def _publish_late(stage: Stage) -> bool:
    """Whether it has arrived: NATS ends a connection from which it hears nothing for too long."""
    first = await stage.fleet.leader()
    async with stage.trap(first.nats, "down", acknowledges, Action.PASS) as arrived:
        async with stage.trap(first.nats, "up", publishes, Action.HOLD, excuses=True) as trap:
            held = asyncio.create_task(stage.create())
            await sprung(trap)
            ports = _ports(first)
            await end_sessions(stage.fleet, first)
            await stage.told()
            # The server has forgotten the id by then, so nothing but the fence refuses it.
            await asyncio.sleep(5 * DUPLICATE_WINDOW)
            assert not arrived.sprung.is_set()
        async with asyncio.timeout(WAIT):
            while not arrived.sprung.is_set() and _ports(first) >= ports:  # noqa: ASYNC110  nobody tells that a connection has ended
                await asyncio.sleep(0.02)
    await held
    return arrived.sprung.is_set()


def _ports(handler: Handler) -> set[int]:
    """Where the connections of a process to NATS come from."""
    return {port for link in handler.nats for port in link.server_ports}


async def nothing(stage: Stage) -> None:
    """Nothing happens at all."""
    for _ in range(3):
        await stage.told()


NEED_TWO = (restart_at_work, late_publish)
"""The others can be played by one process."""


@dataclass(frozen=True)
class Directed:
    """A schedule with the mistake that it brings to light, and the rules that must see it."""

    mistake: str
    schedule: Schedule
    rules: frozenset[str]


DIRECTED = [
    Directed("bare_cursor", late_commit, frozenset({"zombie"})),
    Directed("impatient_holes", late_commit, frozenset({"zombie"})),
    Directed("publish_before_commit", lost_commit, frozenset({"ghost"})),
    Directed("mark_before_acknowledgement", lost_publish, frozenset({"zombie"})),
    Directed("no_drain", restart_at_work, frozenset({"answered"})),
    Directed("no_fence", late_publish, frozenset({"once"})),
    Directed("reply_outside_transaction", lost_answer, frozenset({"present"})),
    Directed("delete_on_acknowledgement", nothing, frozenset({"present", "ghost"})),
]


async def play(
    schedule: Schedule,
    database_url: str,
    nats_url: str,
    results: Path,
    mistake: str = "",
    *,
    mending: bool = False,
) -> list[Violation]:
    """Play a schedule with the sound code or with a mistake in it; returns what was found.

    Mending, the reconciler is not switched off and looks once the schedule is over.
    """
    changes = [mistake] if mending else ["unmended", mistake]
    command = ("tests.faults.serve", *filter(None, changes))
    recorder = Recorder(results / f"{schedule.__name__}-{mistake or 'sound'}.jsonl")
    try:
        async with connected(nats_url) as client:
            await make_stream(client, 1)
            size = 2 if schedule in NEED_TWO else 1
            async with fleet(
                database_url,
                [nats_url],
                size=size,
                clients=1,
                command=command,
                FLEETBUS_SWEEPER="false",
                FLEETBUS_REQUEST_TIMEOUT=str(2 * DEADLINE),
            ) as running:
                await keep_outages(running)
                await running.start()
                async with callers(
                    running.client_urls, recorder, deadline=DEADLINE, patience=PATIENCE
                ) as made:
                    stage = Stage(
                        running, made[0], recorder, lambda: length(client), sound=not mistake
                    )
                    await schedule(stage)
                    await stage.done()
                    if mending:
                        await client.request(RECONCILE_SUBJECT, timeout=WAIT)
                    limit = LIMIT if mistake and not mending else REST_LIMIT
                    world = await settle(running, recorder, limit=limit)
                keep_logs(running, recorder.path)
    finally:
        recorder.close()
    return check(recorder.history, world)
