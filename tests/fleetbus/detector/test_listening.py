"""What is heard of the servers: advisories, every page of connections, and nothing at all."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from bus.running.registry import Registry
from contracts.planning.tasks import CreateTask
from fleetbus.client import connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.detector import servers as servers_module
from fleetbus.server.detector.advisories import Fact, closed_lately, heard
from fleetbus.server.detector.servers import NotTheSystemAccount, Servers
from tests.bus.asking import eventually
from tests.bus.outages import serving

GONE = "$SYS.ACCOUNT.FLEET.DISCONNECT"
CAME = "$SYS.ACCOUNT.FLEET.CONNECT"


def advisory(*, name: Any = "otter", reason: str | None = None) -> bytes:
    told = {"server": {"id": "S"}, "client": {"id": 7, "name": name}, "reason": reason}
    return json.dumps(told).encode()


class TestAdvisories:
    def test_gone_and_there(self) -> None:
        assert heard(GONE, advisory(reason="Client Closed")) == Fact("otter", "S:7", gone=True)
        assert heard(CAME, advisory()) == Fact("otter", "S:7", gone=False)

    def test_a_server_that_ends_says_nothing_of_its_clients(self) -> None:
        assert heard(GONE, advisory(reason="Server Shutdown")) is None

    @pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", "nul\0", None, 7])
    def test_what_no_agent_is_called(self, name: Any) -> None:
        assert heard(GONE, advisory(name=name)) is None

    @pytest.mark.parametrize("message", [b"", b"[]", b'{"client": {}}', b"{", b"\xff"])
    def test_what_is_no_advisory(self, message: bytes) -> None:
        assert heard(GONE, message) is None

    def test_other_news_of_an_account(self) -> None:
        assert heard("$SYS.ACCOUNT.FLEET.CONNS", advisory()) is None

    def test_only_the_last_of_what_was_closed(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        closed = [
            {"cid": 1, "name": "late", "stop": "2025-12-31T23:59:59.123456789Z"},
            {"cid": 2, "name": "early", "stop": "2025-12-31T23:58:59Z"},
            {"cid": 3, "stop": "2025-12-31T23:59:59Z"},
        ]
        found = closed_lately("S", closed, now=now, within=timedelta(seconds=60))
        assert list(found) == [Fact("late", "S:1", gone=True)]


class TestServers:
    @pytest.fixture
    async def system(self, nats_server: EmbeddedNats) -> AsyncIterator[Client]:
        client = await nats.connect(nats_server.system_url)
        yield client
        await client.close()

    @pytest.fixture
    async def account(self, nats_url: str) -> str:
        async with connect(nats_url) as bus:
            answer = await bus.nats.request("$SYS.REQ.USER.INFO", timeout=10)
            return str(json.loads(answer.data)["data"]["account"])

    @pytest.fixture
    def small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers_module, "PAGE", 5)
        monkeypatch.setattr(servers_module, "OVERLAP", 2)

    @pytest.mark.usefixtures("small_pages")
    async def test_every_page(self, system: Client, account: str, nats_url: str) -> None:
        async with AsyncExitStack() as stack:
            for number in range(23):
                await stack.enter_async_context(connect(nats_url, name=f"agent {number}"))
            look = await Servers(system, account).look()
        assert look.names == {f"agent {number}" for number in range(23)}
        assert look.youngest > 0

    @pytest.mark.usefixtures("small_pages")
    async def test_connections_that_close_between_two_pages(
        self, system: Client, account: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What follows them moves up, and is not overlooked."""
        servers = Servers(system, account)
        ask = servers._page
        async with AsyncExitStack() as leaving, AsyncExitStack() as staying:
            for number in range(12):
                await leaving.enter_async_context(connect(nats_url, name=f"leaves {number}"))
            for number in range(9):
                await staying.enter_async_context(connect(nats_url, name=f"stays {number}"))

            async def close_first(subject: str, offset: int) -> dict[str, Any]:
                await leaving.aclose()
                return await ask(subject, offset)

            monkeypatch.setattr(servers, "_page", close_first)
            look = await servers.look()
        assert look.names >= {f"stays {number}" for number in range(9)}

    async def test_other_accounts_are_left_out(
        self, system: Client, account: str, nats_server: EmbeddedNats
    ) -> None:
        async with connect(nats_server.url, name="of another account"):
            assert "of another account" not in (await Servers(system, account).look()).names
            assert "of another account" in (await Servers(system, None).look()).names

    async def test_closed_connections(self, system: Client, account: str, nats_url: str) -> None:
        async with connect(nats_url, name="there"):
            for name in ("gone", "there"):
                async with connect(nats_url, name=name):
                    pass
            closed = await Servers(system, account).closed_lately(timedelta(seconds=60))
        names = {fact.name for fact in closed}
        assert "gone" in names
        assert "there" not in names

    async def test_a_user_of_another_account(self, nats_url: str) -> None:
        async with connect(nats_url) as bus:
            with pytest.raises(NotTheSystemAccount):
                await Servers(bus.nats, None).look()


class TestMisconfigured:
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("nats://sys:wrong@127.0.0.1:{port}", "Authorization"),
            ("nats://127.0.0.1:{port}", "does not belong to the system account"),
            ("nats://sys:wrong@127.0.0.1:1", "Connect call failed"),
            ("nats://sys:wrong@127.0.0.1:port", "invalid connect url"),
        ],
    )
    async def test_it_says_so_once_and_serves(
        self,
        nats_server: EmbeddedNats,
        database_url: str,
        nats_url: str,
        registry: Registry,
        caplog: pytest.LogCaptureFixture,
        url: str,
        why: str,
    ) -> None:
        caplog.set_level(logging.INFO)
        given = {"nats_system_url": url.format(port=nats_server.port)}
        async with serving(registry, database_url, nats_url, **given) as service:
            detector = service.detector
            assert detector is not None
            await eventually(lambda: why in detector.link.trouble, within=30)
            async with connect(nats_url) as bus:
                assert (await bus.call(CreateTask(name="served"))).name == "served"
        said = [r for r in caplog.records if "cannot be detected" in r.getMessage()]
        assert len(said) == 1
        assert "only leases" in said[0].getMessage()
        assert "wrong" not in caplog.text

    async def test_not_asked_for(
        self, nats_server: EmbeddedNats, database_url: str, nats_url: str, registry: Registry
    ) -> None:
        given = {"nats_system_url": nats_server.system_url, "detector": False}
        async with serving(registry, database_url, nats_url, **given) as service:
            assert service.detector is None
