"""Real servers that refuse what they allowed before: services, clients and commands come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bus.contract.errors import EntityTooLarge
from contracts.planning.tasks import CreateTask, ListTasks, TaskCreated
from fleetbus.client import Bus, connect
from fleetbus.client.connection import client as steady
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import eventually
from tests.fleetbus.connection.servers import ConfiguredNats, User, configured
from tests.fleetbus.processes.running import running

HANDLERS, CALLER = "handlers", "caller"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "REFUSED_INTERVAL", 0.1)


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[ConfiguredNats]:
    async with configured(data_dir, User(HANDLERS), User(CALLER)) as server:
        yield server


@pytest.fixture
async def serving(server: ConfiguredNats, settings: Settings) -> AsyncIterator[Service]:
    """A service on that server."""
    service = Service(settings.model_copy(update={"nats_url": server.url_of(HANDLERS)}))
    await service.start()
    try:
        yield service
    finally:
        assert await service.stop()


@asynccontextmanager
async def calling(server: ConfiguredNats) -> AsyncIterator[Bus]:
    async with connect(server.url_of(CALLER), timeout=30, attempt_timeout=0.5) as bus:
        yield bus


async def give_another_password(server: ConfiguredNats, name: str) -> None:
    """A rotation in the wrong order: for a while whoever comes back is refused."""
    refusals = server.log.count("authentication error")
    server.change(name, password="another")
    await server.reload()
    await eventually(lambda: server.log.count("authentication error") > refusals + 1)


async def give_it_back(server: ConfiguredNats, name: str) -> None:
    server.change(name, password="secret")
    await server.reload()


class TestPasswords:
    async def test_of_the_handlers(self, server: ConfiguredNats, serving: Service) -> None:
        async with calling(server) as bus:
            await bus.call(ListTasks())
            await give_another_password(server, HANDLERS)
            assert not serving.can_serve()
            await give_it_back(server, HANDLERS)

            told = await bus.request(CreateTask(name="after"))
            await bus.settled(told)
            await eventually(serving.can_serve)
        assert not serving.failed.is_set()

    async def test_of_a_client(self, server: ConfiguredNats, serving: Service) -> None:
        async with calling(server) as bus, bus.events(TaskCreated) as events:
            await give_another_password(server, CALLER)
            await give_it_back(server, CALLER)
            await bus.call(CreateTask(name="after"))
            assert (await asyncio.wait_for(events.delivery(), 10)).event.task.name == "after"
        assert serving.connected

    async def test_of_a_single_process_and_of_a_command_that_follows(
        self, server: ConfiguredNats, database_url: str
    ) -> None:
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(
                running("serve", DATABASE_URL=database_url, NATS_URL=server.url_of(HANDLERS))
            )
            await process.said("serves")
            following = await stack.enter_async_context(
                running("events", "--follow", "--json", NATS_URL=server.url_of(CALLER))
            )
            bus = await stack.enter_async_context(calling(server))
            await bus.call(CreateTask(name="before"))
            await following.said("before")
            for name in (HANDLERS, CALLER):
                await give_another_password(server, name)
            assert process.process.returncode is None
            for name in (HANDLERS, CALLER):
                await give_it_back(server, name)

            await bus.call(CreateTask(name="after"))
            await following.said("after")
            assert process.output.count("the connection to NATS is lost") == 1


class TestPermissions:
    async def test_a_subscription_that_is_refused_is_not_ready_until_it_is_allowed(
        self, server: ConfiguredNats, serving: Service
    ) -> None:
        server.change(
            HANDLERS, permissions='{ publish: ">", subscribe: { allow: ">", deny: "db.tasks.>" } }'
        )
        await server.reload()
        await eventually(lambda: not serving.can_serve() and serving.client.refused)
        assert not serving.wire.serving
        server.change(HANDLERS, permissions='{ publish: ">", subscribe: ">" }')
        await server.reload()

        await eventually(serving.can_serve)
        async with calling(server) as bus:
            await bus.call(ListTasks())
        assert not serving.failed.is_set()


class TestLargestMessage:
    async def test_is_what_the_server_says_now(
        self, server: ConfiguredNats, serving: Service
    ) -> None:
        async with calling(server) as bus:
            for _ in range(4):
                await bus.call(CreateTask(name="long", description="x" * 30_000))
            assert len((await bus.call(ListTasks())).items) == 4
            server.max_payload = 64_000
            await server.stop()
            await server.start()
            await eventually(serving.can_serve)
            await eventually(lambda: bus.nats.is_connected)

            page = await bus.call(ListTasks())
            assert len(page.items) == 1
            assert page.next_cursor is not None
            with pytest.raises(EntityTooLarge) as refused:
                await bus.call(CreateTask(name="long", description="x" * 40_000))
            assert refused.value.limit < 64_000
        assert serving.client.stats["reconnects"] == 1


class TestInboxes:
    async def test_of_one_caller_cannot_be_read_by_another(
        self, server: ConfiguredNats, serving: Service
    ) -> None:
        for name in (CALLER, "other"):
            permissions = f'{{ publish: ["db.>", "$SRV.>"], subscribe: ["_INBOX.{name}.>"] }}'
            server.users[name] = User(name, permissions=permissions)
        await server.reload()
        async with (
            connect(server.url_of(CALLER), inbox_prefix=f"_INBOX.{CALLER}") as bus,
            connect(server.url_of("other"), inbox_prefix="_INBOX.other") as other,
        ):
            heard = []

            async def listen(message: object) -> None:
                heard.append(message)

            await other.nats.subscribe(f"_INBOX.{CALLER}.>", cb=listen)
            await other.nats.subscribe("_INBOX.>", cb=listen)
            await other.call(ListTasks())
            assert len(other.nats.refused) == 2  # type: ignore[attr-defined]  # a client of ours
            await bus.call(CreateTask(name="secret"))
            assert (await other.call(ListTasks())).items
            assert not heard
        assert serving.can_serve()

    async def test_the_command_line_takes_it_from_the_environment(
        self, server: ConfiguredNats, serving: Service
    ) -> None:
        permissions = f'{{ publish: ["db.>"], subscribe: ["_INBOX.{CALLER}.>"] }}'
        server.change(CALLER, permissions=permissions)
        await server.reload()
        arguments = ("call", "db.tasks.list", "--nats-url", server.url_of(CALLER))
        async with running(*arguments, FLEETBUS_INBOX_PREFIX=f"_INBOX.{CALLER}") as command:
            assert await command.ended() == 0
            assert json.loads(command.output)["items"] == []
        async with running("--inbox-prefix", f"_INBOX.{CALLER}", *arguments) as command:
            assert await command.ended() == 0
        async with running(*arguments) as command:
            assert await command.ended() != 0
            assert "inbox" in command.output
            assert "Traceback" not in command.output
        assert serving.can_serve()
