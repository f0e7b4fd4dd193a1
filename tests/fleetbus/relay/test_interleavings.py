"""Whatever others publish in between: the stream holds exactly our events, each once, in order."""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

from fleetbus.server.relay.reading import Found
from tests.fleetbus.relay.hostile import BLOCKS, Stranger, block, held, stranger, tells
from tests.fleetbus.relay.running import (
    INSERT,
    QUICK,
    Session,
    client_of,
    eventually,
    running_relay,
    session_of,
)

WATCHFUL = replace(QUICK, poll_interval=0.05, watch_interval=0.05)

IDS = [str(uuid4()) for _ in range(40)]
"""Of the events, in the order in which they are recorded: an outsider may know them before us."""

NAMES = (
    "Nats-Msg-Id", "ce-id", "ce-type", "ce-subject", "ce-time", "ce-source", "ce-specversion",
    "ce-datacontenttype", "Fleet-Position", "Fleet-Shortened", "Fleet-Part", "Fleet-Cause",
    "Nats-Rollup", "Nats-TTL", "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Msg-Id",
    "Nats-Expected-Stream", "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit",
    "Nats-Marker-Reason", "Nats-Schedule", "Nats-Stream-Source", "X",
)  # fmt: skip

Act = tuple[str, object]

values = st.sampled_from(
    ["", "0", "1", "2", "5", "40", "10000000", "all", "sub", "1s", "EVENTS", "true", "é", "task.a"]
) | st.sampled_from(IDS)

hostile = st.one_of(
    st.tuples(st.just("bytes"), st.sampled_from(BLOCKS)),
    st.tuples(st.just("headers"), st.dictionaries(st.sampled_from(NAMES), values, max_size=6)),
    st.tuples(st.just("copy"), st.tuples(st.integers(0, 20), st.sampled_from(NAMES), values)),
    st.tuples(st.just("id"), st.integers(0, 3)),
)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 4)),
        hostile,
        hostile,
        st.just(("restart", None)),
    ),
    min_size=3,
    max_size=14,
)


class World:
    """Our events on one side, an outsider on the other."""

    def __init__(self, session: Session, client: Client, somebody: Stranger) -> None:
        self.session = session
        self.client = client
        self.somebody = somebody
        self.recorded: list[str] = []

    async def record(self, count: int) -> None:
        async with self.session.transaction():
            for _ in range(count):
                number = len(self.recorded)
                row = (IDS[number], "task.completed", f"e{number}", f'{{"n": {number}}}')
                await self.session.execute(INSERT, *row)
                self.recorded.append(f"e{number}")

    async def disturb(self, kind: str, what: object) -> None:
        subject, headers, body = "events.task.completed.e0", b"", b"{}"
        if kind == "bytes":
            assert isinstance(what, bytes)
            headers = what
        elif kind == "headers":
            assert isinstance(what, dict)
            headers = block(what)
        elif kind == "id":
            # The server remembers it, and takes ours for a duplicate.
            assert isinstance(what, int)
            place = min(len(self.recorded) + what, len(IDS) - 1)
            headers = block({"Nats-Msg-Id": IDS[place]})
        else:
            assert isinstance(what, tuple)
            place, name, value = what
            if not (found := await held(self.client)):
                return
            copied = found[place % len(found)]
            subject, body = copied.subject, copied.body or b""
            own = {k: v for k, v in (copied.headers or {}).items() if "Batch" not in k}
            own.pop("Nats-Expected-Last-Sequence", None)
            headers = block(own | {"Nats-Msg-Id": str(uuid4())} | {name: value})
        await self.somebody.publish(subject, headers, body)
        await self.somebody.arrived()


async def cleared(session: Session, client: Client) -> None:
    """As at the beginning."""
    await session.execute(
        "TRUNCATE bus.outbox, bus.relay_state, bus.reconciliation, bus.foreign_messages; "
        "ALTER SEQUENCE bus.outbox_position RESTART"
    )
    for info in await client.jetstream().streams_info():
        await client.jetstream().delete_stream(info.config.name or "")


def in_batches(found: list[Found]) -> bool:
    """Whether the events are at the positions of their order, each once."""
    positions = [int((message.headers or {})["Fleet-Position"]) for message in found]
    return positions == list(range(1, len(found) + 1))


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts)
async def test_the_stream_holds_our_events_and_nothing_else(
    database_url: str, nats_url: str, script: list[Act]
) -> None:
    async with (
        client_of(nats_url) as client,
        session_of(database_url) as session,
        stranger(nats_url) as somebody,
    ):
        await cleared(session, client)
        world = World(session, client, somebody)
        async with AsyncExitStack() as running:
            start = partial(running_relay, database_url, client, WATCHFUL)
            relay = await running.enter_async_context(start())
            for kind, what in script:
                if kind == "record":
                    assert isinstance(what, int)
                    await world.record(what)
                elif kind == "restart":
                    await running.aclose()
                    relay = await running.enter_async_context(start())
                else:
                    await world.disturb(kind, what)
            await world.record(1)
            await eventually(partial(tells, client, world.recorded))
            assert in_batches(await held(client))
            assert relay.metrics.errors == 0, relay.metrics.last_error
            bodies = [message.body for message in await held(client)]
            assert bodies == [f'{{"n": {n}}}'.encode() for n in range(len(bodies))]
