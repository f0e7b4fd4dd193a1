"""``fleetbus events replay``: history for a new consumer."""

from datetime import datetime

import pytest
from nats.aio.msg import Msg

from contracts.planning.projects import CreateProject
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus
from tests.fleetbus.cli.program import fleetbus, one_line
from tests.fleetbus.relay.running import stream_reaches

pytestmark = pytest.mark.own_service  # positions are counted from the first


@pytest.fixture
async def history(bus: Bus) -> list[Msg]:
    """Three tasks and a project, as the stream has them."""
    for name in ("one", "two", "three"):
        await bus.call(CreateTask(name=name))
    await bus.call(CreateProject(name="search", url="https://git.example.org/search.git"))
    await stream_reaches(bus.nats, 4)
    subscription = await bus.nats.jetstream().subscribe("events.>", ordered_consumer=True)
    found = [await subscription.next_msg(timeout=5) for _ in range(4)]
    await subscription.unsubscribe()
    return found


def own_headers(message: Msg) -> dict[str, str]:
    headers = dict(message.headers or {})
    return {k: v for k, v in headers.items() if not k.startswith(("Nats-Expected", "Nats-Batch"))}


class TestReplay:
    async def test_events_keep_body_and_headers_and_are_marked(
        self, bus: Bus, history: list[Msg], nats_url: str
    ) -> None:
        heard = await bus.nats.subscribe("audit.tasks")
        arguments = ("--from", "2", "--subject", "events.task.>", "--to", "audit.tasks")
        ended = await fleetbus("events", "replay", *arguments, NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "2 events were sent to audit.tasks\n"

        arrived = [await heard.next_msg(timeout=5) for _ in range(2)]
        assert [message.data for message in arrived] == [m.data for m in history[1:3]]
        assert [dict(message.headers or {}) for message in arrived] == [
            own_headers(message) | {"Fleet-Replay": "true"} for message in history[1:3]
        ]

    async def test_into_a_stream_each_is_stored(
        self, bus: Bus, history: list[Msg], nats_url: str
    ) -> None:
        await bus.nats.jetstream().add_stream(name="AUDIT", subjects=["audit.>"])
        for _ in range(2):
            ended = await fleetbus(
                "events", "replay", "--from", "1h", "--to", "audit.all", NATS_URL=nats_url
            )
            assert (ended.code, ended.err) == (0, "")
        info = await bus.nats.jetstream().stream_info("AUDIT")
        assert info.state.messages == len(history)

    async def test_up_to_a_time(self, bus: Bus, history: list[Msg], nats_url: str) -> None:
        times = [(message.headers or {})["ce-time"] for message in history]
        span = ("--from", times[1], "--to-time", times[3])
        ended = await fleetbus("events", "replay", *span, "--to", "audit.x", NATS_URL=nats_url)
        between = [t for t in times if times[1] <= t < times[3]]
        assert ended.out == f"{len(between)} events were sent to audit.x\n"
        assert datetime.fromisoformat(times[0]) < datetime.fromisoformat(times[3])
        assert bus.nats.is_connected

    @pytest.mark.parametrize(
        "target", ["events.task.x", "db.tasks.get", "$SYS.x", "_fleetbus.outbox", "events", "a..b"]
    )
    async def test_subjects_of_ours_are_refused(self, target: str) -> None:
        ended = await fleetbus("events", "replay", "--from", "1h", "--to", target)
        assert ended.code == 2
        assert "--to" in one_line(ended.err)

    @pytest.mark.parametrize(
        ("option", "value"),
        [("--from", "yesterday"), ("--to-time", "soon"), ("--subject", "db.tasks.get")],
    )
    async def test_nonsense_is_refused(self, option: str, value: str) -> None:
        given = {"--from": "1h", "--to": "audit.x"} | {option: value}
        arguments = [part for pair in given.items() for part in pair]
        ended = await fleetbus("events", "replay", *arguments)
        assert ended.code == 2
        assert option in one_line(ended.err)

    async def test_what_is_no_event_is_no_history(
        self, bus: Bus, history: list[Msg], nats_url: str
    ) -> None:
        for headers in ({"Fleet-Position": "3"}, {"ce-id": "x"}, None):
            await bus.nats.publish("events.task.created.x", b"{}", headers=headers)
        ended = await fleetbus("events", "replay", "--from", "1", "--to", "a", NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"{len(history)} events were sent to a\n"
