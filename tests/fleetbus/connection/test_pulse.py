"""A process that cannot hear mends itself, or ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contracts.planning.tasks import ListTasks
from fleetbus.client import Bus
from fleetbus.server import processes, pulse
from fleetbus.server.config import Settings
from fleetbus.server.monitoring.readiness import readiness
from fleetbus.server.service import Service
from tests.bus.asking import eventually
from tests.fleetbus.connection.raw import raw_session


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "INTERVAL", 0.05)
    monkeypatch.setattr(pulse, "PATIENCE", 0.1)
    monkeypatch.setattr(pulse, "FRESH", 0.4)


class Deafness:
    """Reads what the server sends and tells nobody, on this connection or on all of them."""

    def __init__(self, service: Service) -> None:
        self._parser = service.client._ps
        self._parse = self._parser.parse
        self.ends_with_the_connection = True
        self._reset = self._parser.reset

    def begin(self) -> None:
        async def ignore(data: bytes = b"") -> None: ...

        self._parser.parse = ignore  # type: ignore[method-assign]  # that is the fault
        self._parser.reset = self._renewed  # type: ignore[method-assign]  # to know of a new one

    def end(self) -> None:
        self._parser.parse = self._parse  # type: ignore[method-assign]  # as it was
        self._parser.reset = self._reset  # type: ignore[method-assign]  # as it was

    def _renewed(self) -> None:
        self._reset()
        if self.ends_with_the_connection:
            self.end()


@pytest.fixture
async def deafness(service: Service) -> AsyncIterator[Deafness]:
    deafness = Deafness(service)
    yield deafness
    deafness.end()


async def subscriptions(service: Service) -> str:
    return (await readiness(service))["subscriptions"]


class TestPulse:
    async def test_a_process_that_hears_is_fresh(self, service: Service) -> None:
        assert service.pulse.fresh
        assert service.can_serve()
        assert await subscriptions(service) == "ok"
        before = service.pulse.last
        await eventually(lambda: service.pulse.last != before)

    async def test_a_deaf_one_is_not_ready_and_connects_anew(
        self, service: Service, bus: Bus, deafness: Deafness
    ) -> None:
        deafness.begin()
        await eventually(lambda: not service.pulse.fresh or service.client.stats["reconnects"])
        await eventually(lambda: service.client.stats["reconnects"] == 1)
        await eventually(lambda: service.pulse.fresh)
        await bus.call(ListTasks())
        assert not service.failed.is_set()
        assert await subscriptions(service) == "ok"

    async def test_readiness_says_it(self, service: Service, deafness: Deafness) -> None:
        deafness.ends_with_the_connection = False
        deafness.begin()

        async def said() -> bool:
            return await subscriptions(service) == "own messages do not come back"

        await eventually(said)
        assert not service.can_serve()

    async def test_one_that_stays_deaf_ends(self, service: Service, deafness: Deafness) -> None:
        deafness.ends_with_the_connection = False
        deafness.begin()
        await asyncio.wait_for(service.failed.wait(), 30)
        assert service.client.stats["reconnects"] >= 1
        deafness.end()
        await service.client.reconnect("of a test")
        await eventually(lambda: service.client.is_connected)

    async def test_one_that_hears_others_is_busy_and_keeps_its_connection(
        self, service: Service, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service.wire.responder, "notify", lambda *_: None)
        while service.pulse._missed < 1:
            await bus.call(ListTasks())
        assert service.client.stats["reconnects"] == 0

    async def test_what_somebody_else_sends_is_no_sign_of_life(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service.wire.responder, "notify", lambda *_: None)
        async with raw_session(service.settings.nats_url) as raw:
            while service.pulse.fresh:
                raw.send(service.pulse._subject.encode(), b"forged")
                await raw.settled()
        assert not service.can_serve()


class TestEndings:
    async def test_the_process_ends_with_one(self, settings: Settings) -> None:
        stop = asyncio.Event()
        running: list[Service] = []
        start = Service.start

        async def note(service: Service) -> None:
            running.append(service)
            await start(service)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Service, "start", note)
            patch.setattr(processes, "_leave_alone", lambda: None)
            serving = asyncio.create_task(processes.serve_one(settings, wait=False, stop=stop))
            await eventually(lambda: running and hasattr(running[0], "pulse"))
            await eventually(lambda: running[0].pulse.fresh)
            running[0].fail("of a test")
            assert await asyncio.wait_for(serving, 30) == 1

    @pytest.mark.parametrize("name", ["relay", "fleetbus-replies"])
    async def test_what_runs_as_long_as_the_process_ends_it(
        self, settings: Settings, name: str
    ) -> None:
        service, others = Service(settings), asyncio.all_tasks()
        await service.start()
        try:
            [task] = [t for t in asyncio.all_tasks() - others if t.get_name() == name]
            task.cancel()
            await asyncio.wait_for(service.failed.wait(), 10)
        finally:
            await service.stop()

    async def test_a_connection_that_was_closed_ends_it(self, settings: Settings) -> None:
        service = Service(settings)
        await service.start()
        await service.client.close()
        await asyncio.wait_for(service.failed.wait(), 10)
        await service.abandon()
