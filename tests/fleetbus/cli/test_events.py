"""``fleetbus events``: the stream as lines, to its end or for ever."""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from bus.storage.own.outbox import OutboxRow
from contracts.planning.projects import CreateProject, UpdateProject
from contracts.planning.tasks import BlockTask, CreateTask, Task
from fleetbus.cli.events import token
from fleetbus.cli.stream import StreamReader
from fleetbus.client import Bus
from fleetbus.server.relay.events import message
from tests.fleetbus.cli.program import clean_environment, fleetbus, one_line, started

pytestmark = pytest.mark.own_service  # a stream is read from its beginning


async def create(bus: Bus, *names: str) -> list[Task]:
    return [await bus.call(CreateTask(name=name)) for name in names]


async def settled(bus: Bus, count: int) -> None:
    """Wait until the stream holds so many events."""
    js, name = bus.nats.jetstream(), "EVENTS"
    async with asyncio.timeout(10):
        while (await js.stream_info(name)).state.messages < count:  # noqa: ASYNC110  polls a server
            await asyncio.sleep(0.01)


@pytest.fixture
async def tasks(bus: Bus) -> list[Task]:
    """Three tasks and a project, told in the stream."""
    made = await create(bus, "one", "two [2]", "three")
    await bus.call(CreateProject(name="search", url="https://git.example.org/search.git"))
    await settled(bus, 4)
    return made


class TestWhatIsThere:
    async def test_a_line_for_each_event(self, tasks: list[Task], nats_url: str) -> None:
        ended = await fleetbus("events", NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        lines = [line.split(maxsplit=3) for line in ended.out.splitlines()]
        assert [line[1] for line in lines] == ["task.created"] * 3 + ["project.created"]
        assert [line[2] for line in lines[:3]] == [str(task.id) for task in tasks]
        assert lines[1][3] == "two [2]  [pending]"
        told = datetime.fromisoformat(lines[0][0])
        assert abs(told - tasks[0].created_at) < timedelta(seconds=10)

    async def test_json_has_attributes_and_data(self, tasks: list[Task], nats_url: str) -> None:
        ended = await fleetbus("events", "--json", NATS_URL=nats_url)
        events = [json.loads(line) for line in ended.out.splitlines()]
        assert len(events) == 4
        first = events[0]
        assert first["specversion"] == "1.0"
        assert first["type"] == "task.created"
        assert UUID(first["subject"]) == tasks[0].id
        assert Task.model_validate_json(json.dumps(first["data"]["task"])) == tasks[0]
        assert [event["position"] for event in events] == sorted(e["position"] for e in events)
        assert first["cause"]

    @pytest.mark.usefixtures("tasks")
    async def test_of_some_types(self, bus: Bus, nats_url: str) -> None:
        ended = await fleetbus("events", "--type", "project.created", NATS_URL=nats_url)
        assert [line.split()[1] for line in ended.out.splitlines()] == ["project.created"]
        both = ("--type", "project.created", "--type", "task.created")
        ended = await fleetbus("events", *both, NATS_URL=nats_url)
        assert len(ended.out.splitlines()) == 4
        assert (await bus.nats.jetstream().consumers_info("EVENTS")) == []

    async def test_of_one_entity(self, tasks: list[Task], nats_url: str) -> None:
        ended = await fleetbus("events", "--entity", str(tasks[2].id), NATS_URL=nats_url)
        assert len(ended.out.splitlines()) == 1
        assert "three" in ended.out

    @pytest.mark.usefixtures("tasks")
    @pytest.mark.parametrize(
        ("since", "count"), [("1h", 4), ("1h30m", 4), ("now", 0), ("2026-01-01T00:00Z", None)]
    )
    async def test_since(self, since: str, count: int | None, nats_url: str) -> None:
        ended = await fleetbus("events", "--since", since, NATS_URL=nats_url)
        assert ended.code == 0
        if count is not None:
            assert len(ended.out.splitlines()) == count

    @pytest.mark.usefixtures("tasks")
    async def test_since_a_moment_between(self, bus: Bus, nats_url: str) -> None:
        await asyncio.sleep(0.05)
        moment = datetime.now(UTC).isoformat()
        await create(bus, "late")
        await settled(bus, 5)
        ended = await fleetbus("events", "--since", moment, NATS_URL=nats_url)
        assert len(ended.out.splitlines()) == 1
        assert "late" in ended.out

    async def test_what_changed_is_told_before_and_after(
        self, bus: Bus, tasks: list[Task], nats_url: str
    ) -> None:
        await bus.call(BlockTask(id=tasks[0].id, reason="no way"))
        await settled(bus, 5)
        ended = await fleetbus("events", "--type", "task.blocked", NATS_URL=nats_url)
        assert ended.out.rstrip().endswith("one  [pending → blocked]")

    @pytest.mark.usefixtures("service")
    async def test_an_empty_stream(self, nats_url: str) -> None:
        ended = await fleetbus("events", NATS_URL=nats_url)
        assert (ended.code, ended.out, ended.err) == (0, "", "")


class TestRefusal:
    @pytest.mark.usefixtures("service")
    async def test_an_unknown_type_has_neighbours(self, nats_url: str) -> None:
        ended = await fleetbus("events", "--type", "task.complete", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (2, "")
        assert "there is no event task.complete; did you mean task.completed" in one_line(ended.err)

    @pytest.mark.parametrize("since", ["yesterday", "5", "1y", ""])
    async def test_a_time_that_is_none(self, since: str, nats_url: str) -> None:
        ended = await fleetbus("events", "--since", since, NATS_URL=nats_url)
        assert ended.code == 2
        assert "90s, 15m, 1h30m" in one_line(ended.err)

    async def test_no_stream(self, nats_url: str) -> None:
        ended = await fleetbus("events", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == "there is no stream EVENTS yet: `fleetbus serve` creates it\n"


class TestFollow:
    @pytest.mark.usefixtures("tasks")
    async def test_goes_on_until_interrupted(self, bus: Bus, nats_url: str) -> None:
        async with started("events", "--follow", NATS_URL=nats_url) as process:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                there = [await process.stdout.readline() for _ in range(4)]
                await create(bus, "later")
                line = await process.stdout.readline()
                process.send_signal(signal.SIGINT)
                out, err = await process.communicate()
        assert all(b"created" in known for known in there)
        assert b"later" in line
        assert process.returncode in {0, 130}
        assert (out, err) == (b"", b"")

    @pytest.mark.usefixtures("tasks")
    async def test_a_new_consumer_goes_on_where_the_old_one_ended(self, bus: Bus) -> None:
        js = bus.nats.jetstream()
        reader = StreamReader(bus.nats, "EVENTS", ["events.task.created.*"])
        seen = []
        async with asyncio.timeout(20):
            async for event in reader.messages(follow=True):
                seen.append(json.loads(event.data)["task"]["name"])
                if len(seen) == 2:
                    for consumer in await js.consumers_info("EVENTS"):
                        await js.delete_consumer("EVENTS", consumer.name)
                    await create(bus, "four")
                if seen[-1] == "four":
                    break
        assert seen == ["one", "two [2]", "three", "four"]


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("flags", ["", "--follow"])
async def test_a_reader_that_leaves_ends_it_quietly(flags: str, bus: Bus, nats_url: str) -> None:
    project = await bus.call(CreateProject(name="x", url="https://git.example.org/x.git"))
    for number in range(60):
        await bus.call(UpdateProject(id=project.id, description=f"{number} " + 3000 * "x"))
    await settled(bus, 65)
    command = f"{sys.executable} -m fleetbus events --json {flags} | head -1"
    process = await asyncio.create_subprocess_shell(
        command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment() | {"NATS_URL": nats_url},
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert (len(out.splitlines()), err) == (1, b"")


@pytest.mark.parametrize("entity_id", ["0199c0de-0000-7000-8000-000000000001", "a.b c*", "", "ü>"])
def test_ids_are_tokens_as_the_relay_writes_them(entity_id: str) -> None:
    row = OutboxRow(1, 1, "e", "task.created", entity_id, "{}", None, None, datetime.now(UTC))
    assert message(row, "fleetbus").subject == f"events.task.created.{token(entity_id)}"
