"""What is done to the system, and the words in which the results tell it.

A nemesis does its harm, undoes it, and says to whom; None when there was nothing to harm.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from tests.bus.outages import frozen
from tests.faults.fleet import Fleet, Handler
from tests.faults.nodes import STREAM, insist, stream_leader
from tests.faults.observing import FOREIGN
from tests.faults.proxy import Action, Direction, Link, Trap
from tests.faults.wires import Frame

SPRINGS_WITHIN = 5.0
"""Seconds that a trap lies before it is taken away unsprung."""

REFUSED_FOR = 0.3
"""Seconds for which a link that was cut takes no new connection."""

Strike = Callable[[Fleet, Random], Awaitable[str | None]]


@dataclass(frozen=True)
class Nemesis:
    """A kind of harm."""

    name: str
    what: str
    strike: Strike
    excuses: bool
    """Whether a request may stay without an answer because of it."""
    nodes: tuple[int, ...]
    """On how many NATS servers it can be done."""
    loses: bool
    """Whether the stream forgets what it has acknowledged: only the reconciler helps then."""


NEMESES: dict[str, Nemesis] = {}


def nemesis(
    what: str, *, excuses: bool = False, nodes: tuple[int, ...] = (1, 3), loses: bool = False
) -> Callable[[Strike], Strike]:
    """Declare a nemesis; its name is the function's."""

    def declare(strike: Strike) -> Strike:
        name = strike.__name__
        NEMESES[name] = Nemesis(name, what, strike, excuses, nodes, loses)
        return strike

    return declare


async def _wait(choose: Random, least: float = 0.3, most: float = 2.5) -> None:
    await asyncio.sleep(choose.uniform(least, most))


@nemesis("a handler process is killed (SIGKILL)", excuses=True)
async def handler_killed(fleet: Fleet, choose: Random) -> str:
    return await _killed(choose.choice(fleet.handlers), choose)


@nemesis("the process with the active relay is killed (SIGKILL)", excuses=True)
async def relay_killed(fleet: Fleet, choose: Random) -> str:
    return await _killed(await fleet.leader(), choose)


async def _killed(handler: Handler, choose: Random) -> str:
    await handler.kill()
    await _wait(choose, most=1.0)
    await handler.start()
    return handler.name


@nemesis("a handler process is frozen for seconds (SIGSTOP, SIGCONT)")
async def handler_frozen(fleet: Fleet, choose: Random) -> str:
    handler = choose.choice(fleet.handlers)
    handler.send(signal.SIGSTOP)
    await _wait(choose)
    handler.send(signal.SIGCONT)
    return handler.name


@nemesis("the active relay is frozen, loses its lock, and wakes up when another one has taken over")
async def relay_frozen(fleet: Fleet, choose: Random) -> str:
    handler = await fleet.leader()
    handler.send(signal.SIGSTOP)
    try:
        await end_sessions(fleet, handler)
        await fleet.leader()
        await _wait(choose, most=1.0)
    finally:
        handler.send(signal.SIGCONT)
    return handler.name


@nemesis("a handler process is restarted (SIGTERM)")
async def handler_restarted(fleet: Fleet, choose: Random) -> str:
    handler = choose.choice(fleet.handlers)
    handler.send(signal.SIGTERM)
    await handler.ended()
    await handler.start()
    return handler.name


@nemesis("Postgres is killed (SIGKILL)")
async def postgres_killed(fleet: Fleet, choose: Random) -> str:
    assert fleet.servers.postgres is not None
    await fleet.servers.postgres.kill()
    await _wait(choose, most=1.0)
    await fleet.servers.postgres.start()
    return "Postgres"


@nemesis("Postgres is shut down, immediately or after ending its sessions, and started again")
async def postgres_restarted(fleet: Fleet, choose: Random) -> str:
    assert fleet.servers.postgres is not None
    await fleet.servers.postgres.stop(choose.choice(("immediate", "fast")))
    await _wait(choose, most=1.0)
    await fleet.servers.postgres.start()
    return "Postgres"


@nemesis("Postgres is frozen for seconds (SIGSTOP, SIGCONT)")
async def postgres_frozen(fleet: Fleet, choose: Random) -> str:
    assert fleet.servers.postgres is not None
    with frozen(fleet.servers.postgres.pid):
        await _wait(choose)
    return "Postgres"


@nemesis("all sessions of the handlers are ended (pg_terminate_backend)")
async def sessions_ended(fleet: Fleet, _: Random) -> str:
    await end_sessions(fleet, *fleet.handlers)
    return "Postgres"


async def end_sessions(fleet: Fleet, *handlers: Handler) -> None:
    """End every session that these handlers have with Postgres."""
    ports = [port for handler in handlers for port in handler.postgres.server_ports]
    await fleet.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND client_port = ANY($1)",
        ports,
    )


@nemesis("a NATS server is killed (SIGKILL)", excuses=True)
async def nats_killed(fleet: Fleet, choose: Random) -> str:
    node = choose.choice(fleet.servers.nodes)
    await node.kill()
    await _wait(choose, most=1.0)
    await node.start()
    return node.name


@nemesis("a NATS server is restarted (SIGTERM)", excuses=True)
async def nats_restarted(fleet: Fleet, choose: Random) -> str:
    node = choose.choice(fleet.servers.nodes)
    await node.stop()
    await node.start()
    return node.name


@nemesis("a NATS server is frozen for seconds (SIGSTOP, SIGCONT)")
async def nats_frozen(fleet: Fleet, choose: Random) -> str:
    node = choose.choice(fleet.servers.nodes)
    with frozen(node.pid):
        await _wait(choose)
    return node.name


@nemesis("the server that leads the replicated stream is killed", excuses=True, nodes=(3,))
async def stream_leader_killed(fleet: Fleet, choose: Random) -> str | None:
    leader = await stream_leader(fleet.nats_urls)
    for node in fleet.servers.nodes:
        if node.name == leader:
            await node.kill()
            await _wait(choose, most=2.0)
            await node.start()
            return node.name
    return None


def _client(fleet: Fleet, choose: Random) -> list[Link]:
    return choose.choice(fleet.clients)


def _nats(fleet: Fleet, choose: Random) -> list[Link]:
    return choose.choice(fleet.handlers).nats


def _postgres(fleet: Fleet, choose: Random) -> list[Link]:
    return [choose.choice(fleet.handlers).postgres]


async def _late(links: list[Link], choose: Random) -> None:
    for link in links:
        link.delay = choose.uniform(0.005, 0.1)
    await _wait(choose)
    for link in links:
        link.delay = 0.0


async def _cut(links: list[Link], _: Random) -> None:
    for link in links:
        link.down = True
        link.cut()
    await asyncio.sleep(REFUSED_FOR)
    for link in links:
        link.down = False


async def _stalled(links: list[Link], choose: Random) -> None:
    for link in links:
        link.freeze()
    await _wait(choose)
    for link in links:
        link.thaw()


async def _half_open(links: list[Link], choose: Random) -> None:
    for link in links:
        link.freeze()
    await _wait(choose)
    for link in links:
        link.cut()
        link.thaw()


PAIRS = {
    "client": ("a client and NATS", _client, True),
    "nats": ("a handler and NATS", _nats, True),
    "postgres": ("a handler and Postgres", _postgres, False),
}
HARMS = {
    "late": ("{} is slow", _late, False),
    "stalled": ("{} stalls for seconds and continues", _stalled, False),
    "half_open": ("{} is half open for seconds, then breaks", _half_open, True),
    "cut": ("{} breaks", _cut, True),
}


def _declare_links() -> None:
    """Each harm of each pair of ends is a nemesis of its own."""
    for pair, (ends, find, answers) in PAIRS.items():
        for harm, (words, do, breaks) in HARMS.items():

            async def strike(
                fleet: Fleet,
                choose: Random,
                find: Callable[[Fleet, Random], list[Link]] = find,
                do: Callable[[list[Link], Random], Awaitable[None]] = do,
            ) -> str:
                links = find(fleet, choose)
                await do(links, choose)
                return links[0].name

            strike.__name__ = f"{pair}_{harm}"
            what = words.format(f"the connection between {ends}")
            nemesis(what, excuses=answers and breaks)(strike)


_declare_links()


def commits(frame: Frame) -> bool:
    """Whether it is the COMMIT of a transaction that has told something."""
    return frame.commits and frame.tells


def publishes(frame: Frame) -> bool:
    """Whether it publishes an event."""
    return frame.subject.startswith("events.")


def acknowledges(frame: Frame) -> bool:
    """Whether it is the stream's answer to a publish."""
    return frame.subject.startswith("_INBOX.") and b'"seq":' in frame.payload[:200]


def answers(frame: Frame) -> bool:
    """Whether it is the answer to a request."""
    return frame.subject.startswith("_INBOX.")


async def spring(
    links: list[Link],
    direction: Direction,
    matches: Callable[[Frame], bool],
    action: Action,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> str | None:
    """Lay a trap on links; returns the name of the one on which it sprang."""
    trap = Trap(direction, matches, action)
    for link in links:
        link.arm(trap)
    with suppress(TimeoutError):
        async with asyncio.timeout(SPRINGS_WITHIN):
            await trap.sprung.wait()
    if meanwhile is not None:
        await meanwhile()
    for link in links:
        link.disarm(trap)
    return trap.sprung_on.name if trap.sprung_on else None


@nemesis("COMMIT reaches Postgres, and the connection breaks before its answer is back")
async def commit_answer_lost(fleet: Fleet, _: Random) -> str | None:
    return await _spring_commit(fleet, Action.CUT_AFTER)


@nemesis("the connection breaks before COMMIT reaches Postgres")
async def commit_lost(fleet: Fleet, _: Random) -> str | None:
    return await _spring_commit(fleet, Action.CUT_BEFORE)


@nemesis("a COMMIT is delayed until later transactions are committed and published")
async def commit_held(fleet: Fleet, choose: Random) -> str | None:
    return await _spring_commit(fleet, Action.HOLD, lambda: _wait(choose, 0.5, 1.5))


async def _spring_commit(
    fleet: Fleet, action: Action, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> str | None:
    links = [handler.postgres for handler in fleet.handlers]
    return await spring(links, "up", commits, action, meanwhile)


@nemesis("an acknowledgement of the stream is lost")
async def acknowledgement_lost(fleet: Fleet, _: Random) -> str | None:
    links = (await fleet.leader()).nats
    return await spring(links, "down", acknowledges, Action.SWALLOW)


@nemesis("the connection breaks when an event is published", excuses=True)
async def publish_lost(fleet: Fleet, _: Random) -> str | None:
    return await spring((await fleet.leader()).nats, "up", publishes, Action.CUT_BEFORE)


@nemesis("a publish is delayed until another relay has taken over", excuses=True)
async def publish_held(fleet: Fleet, _: Random) -> str | None:
    handler = await fleet.leader()

    async def lose_the_lock() -> None:
        await end_sessions(fleet, handler)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while await fleet.leader() is handler:  # noqa: ASYNC110  the database tells, and only when asked
                    await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)

    return await spring(handler.nats, "up", publishes, Action.HOLD, lose_the_lock)


@nemesis("the answer to a client is lost", excuses=True)
async def answer_lost(fleet: Fleet, choose: Random) -> str | None:
    return await spring(_client(fleet, choose), "down", answers, Action.SWALLOW)


@nemesis("somebody publishes into the stream by hand")
async def foreign_event(fleet: Fleet, _: Random) -> str:
    headers = {FOREIGN: "true"}
    await insist(lambda js: js.publish("events.foreign", b"{}", headers=headers), fleet.nats_urls)
    return STREAM
