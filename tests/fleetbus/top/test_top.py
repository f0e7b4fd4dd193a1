"""``fleetbus top``: what is asked for, what is made of it, and what a person sees."""

import asyncio
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from contracts.agents.agents import Heartbeat, RegisterAgent, SuspectAgent
from contracts.planning.tasks import ClaimTasks, CreateTask
from fleetbus.cli.top.collect import Collector, Operation, Snapshot
from fleetbus.cli.top.view import picture
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.fleetbus.cli.program import fleetbus

NOTHING = Snapshot(
    at=0.0,
    processes=(),
    operations=(),
    agents=None,
    tasks={},
    queue=None,
    events_per_second=0.0,
    latest=(),
)


def seen(now: Snapshot, before: Snapshot | None = None) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(picture(now, before))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line(text: str, word: str) -> list[str]:
    [found] = [line for line in text.splitlines() if line.startswith(word)]
    return found.split()


@pytest.fixture
async def collector(bus: Bus, service: Service) -> Collector:
    assert service.relay is not None
    collector = Collector(bus.nats)
    await collector.start()
    return collector


class TestCollector:
    async def test_agents_with_their_tasks_and_the_queue(
        self, bus: Bus, collector: Collector
    ) -> None:
        for name in ("first", "second"):
            await bus.call(CreateTask(name=name))
        agent = await bus.call(RegisterAgent(name="otter"))
        await bus.call(ClaimTasks(agent_id=str(agent.id)))
        await bus.call(Heartbeat(id=agent.id, incarnation=1, progress={"step": 2}))
        await bus.call(SuspectAgent(connection_name=str(agent.id)))

        found = await collector.look()

        assert found.agents is not None
        [shown] = found.agents
        assert (shown["name"], shown["progress"]) == ("otter", {"step": 2})
        assert found.tasks == {shown["task_id"]: "first"}
        assert found.queue is not None
        assert (found.queue["ready"], found.queue["in_progress"]) == (1, 1)
        assert len(found.processes) == 1
        requests = {one.subject: one.requests for one in found.operations}
        assert requests["db.tasks.create"] == 2
        assert line(seen(found), "otter")[1] == "suspected"

    async def test_events_are_counted_and_the_latest_shown(
        self, bus: Bus, collector: Collector
    ) -> None:
        await bus.call(CreateTask(name="told"))

        async with asyncio.timeout(20):
            while not (found := await collector.look()).latest:
                assert found.events_per_second == 0

        assert found.events_per_second > 0
        assert "task.created" in seen(found)

    async def test_without_handlers_it_says_so(self, nats_url: str) -> None:
        ended = await fleetbus("top", "--once", NATS_URL=nats_url)

        assert ended.code == 0
        assert "no handler process answers" in ended.out
        assert "nobody answers db.agents.list" in ended.out


class TestPicture:
    def test_rates_are_those_since_the_last_look(self) -> None:
        before = replace(NOTHING, operations=[Operation("db.a.b", 10, 0, 1.0)])
        now = replace(NOTHING, at=2.0, operations=[Operation("db.a.b", 30, 1, 2.5)])

        assert line(seen(now, before), "db.a.b") == ["db.a.b", "10.0", "30", "1", "2.5"]

    def test_a_restarted_process_counts_from_nothing(self) -> None:
        before = replace(NOTHING, operations=[Operation("db.a.b", 100, 0, 1.0)])
        now = replace(NOTHING, at=1.0, operations=[Operation("db.a.b", 5, 0, 1.0)])

        assert line(seen(now, before), "db.a.b")[1] == "0.0"

    def test_what_a_name_holds_moves_no_cursor(self) -> None:
        agent = {
            "name": "[red]\x1b[2J",
            "status": "idle",
            "suspected_at": None,
            "last_heartbeat_at": datetime.now(UTC).isoformat(),
            "task_id": None,
            "progress": None,
        }

        shown = seen(replace(NOTHING, agents=[agent]))

        assert "[red] [2J" in shown
        assert "\x1b" not in shown

    def test_a_relay_that_nobody_is(self) -> None:
        outbox = {"backlog": 7, "oldest_unpublished": 2.5, "published_position": 3}
        process = {"in_flight": 1, "shed": 0, "relay": {"leader": False}, "outbox": outbox}

        shown = seen(replace(NOTHING, processes=[process]))

        assert "NOT ACTIVE, position 3, 7 events wait, the oldest for 2.5 s" in shown


async def test_one_picture_in_a_pipe(bus: Bus, service: Service, nats_url: str) -> None:
    await bus.call(RegisterAgent(name="otter"))
    assert service.dispatcher.stats.in_flight == 0

    ended = await fleetbus("top", NATS_URL=nats_url)

    assert (ended.code, ended.err) == (0, "")
    assert line(ended.out, "otter")[:2] == ["otter", "idle"]
    assert line(ended.out, "db.agents.register")[2:4] == ["1", "0"]
