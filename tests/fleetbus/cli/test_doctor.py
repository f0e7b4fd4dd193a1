"""``fleetbus doctor``: what is well is ok, what is not says what to do."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Overloaded
from bus.running.calls import Answer
from bus.running.registry import Registry
from bus.storage.own.reconciliation import State, save_verdict
from contracts.agents.accounts import CreateAccount, SetAccountCredentials
from contracts.planning.tasks import CreateTask
from fleetbus.cli.doctor.check import Check
from fleetbus.cli.doctor.examine import examine
from fleetbus.client import connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.outages import serving
from tests.bus.test_troubles import read_only
from tests.fleetbus.cli.program import fleetbus
from tests.fleetbus.relay.running import client_of, eventually

pytestmark = pytest.mark.own_service  # a stream and its server are looked at as a whole
OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))

NOWHERE: dict[str, Any] = {
    "nats_url": "nats://127.0.0.1:1",
    "database_url": "postgresql://fleetbus:secret@127.0.0.1:1/fleetbus",
}


@pytest.fixture
async def complete(settings: Settings, registry: Registry) -> AsyncIterator[Settings]:
    """A service with everything in it, whose sweeper has made a round."""
    full = settings.model_copy(update={"sweeper": True})
    service = Service(full, registry)
    await service.start()
    try:
        async with asyncio.timeout(20):
            while wrong(await examine(full)):  # noqa: ASYNC110  other tasks make it well
                await asyncio.sleep(0.1)
        yield full
    finally:
        await service.stop()


def wrong(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.ok}


class TestReadOnly:
    async def test_it_is_told(self, service: Service, db: AsyncConnection) -> None:
        async with read_only(db):
            found = wrong(await examine(service.settings))["Postgres"]
        assert "read-only" in found.detail


class TestProgram:
    async def test_everything_is_well(self, complete: Settings) -> None:
        ended = await fleetbus(
            "doctor", NATS_URL=complete.nats_url, DATABASE_URL=complete.database_url
        )
        assert (ended.code, ended.err) == (0, ""), ended.out
        names = [line.split()[1] for line in ended.out.splitlines()]
        assert names == [
            "Postgres",
            "clock",
            "schema",
            "relay",
            "events",
            "sweeper",
            "NATS",
            "stream",
            "handlers",
            "load",
            "keys",
            "detection",
            "query",
        ]
        assert {line.split()[0] for line in ended.out.splitlines()} == {"ok"}

    async def test_nothing_is_there(self) -> None:
        ended = await fleetbus(
            "doctor", NATS_URL=NOWHERE["nats_url"], DATABASE_URL=NOWHERE["database_url"]
        )
        assert (ended.code, ended.err) == (1, "")
        lines = ended.out.splitlines()
        wrong = [line.split()[:2] for line in lines[::2]]
        assert wrong == [["WRONG", "Postgres"], ["WRONG", "NATS"]]
        assert all("→ start it, or name another" in line for line in lines[1::2])
        assert "secret" not in ended.out


class TestPostgres:
    async def test_a_schema_that_is_too_old(self, own_postgres: EmbeddedPostgres) -> None:
        settings = Settings(**NOWHERE | {"database_url": own_postgres.url})
        assert "fleetbus migrate" in wrong(await examine(settings))["schema"].remedy
        await migrate.upgrade(own_postgres.url)
        found = wrong(await examine(settings))
        assert found.keys() == {"relay", "sweeper", "NATS"}
        assert "none is active" in found["relay"].detail
        assert "never ran" in found["sweeper"].detail

    @pytest.mark.parametrize("url", ["nonsense", "postgresql://host:port/x"])
    async def test_an_address_that_is_none(self, url: str) -> None:
        found = wrong(await examine(Settings(**NOWHERE | {"database_url": url})))
        assert "is not a Postgres URL" in found["Postgres"].detail

    async def test_a_database_that_does_not_exist(self, database_url: str) -> None:
        settings = Settings(**NOWHERE | {"database_url": database_url + "_missing"})
        assert "does not exist" in wrong(await examine(settings))["Postgres"].detail


class TestEvents:
    @pytest.mark.parametrize(
        ("state", "said", "remedy"),
        [
            ("timeline_conflict", "nothing has been published since", "events accept-timeline"),
            ("incomplete", "3 lost events are not back yet", "tries again"),
        ],
    )
    async def test_what_the_last_comparison_found(
        self, settings: Settings, db: AsyncConnection, state: State, said: str, remedy: str
    ) -> None:
        await save_verdict(db, state, checked=9, missing=4, repaired=1)
        found = wrong(await examine(settings))["events"]
        assert said in found.detail
        assert remedy in found.remedy


class TestNats:
    async def test_no_stream_and_no_handlers(self, settings: Settings) -> None:
        found = wrong(await examine(settings))
        assert found["stream"].detail == "there is no stream EVENTS"
        assert found["handlers"].detail == "no handler process answers"

    async def test_looking_makes_no_stream(self, settings: Settings) -> None:
        await examine(settings)
        async with connect(settings.nats_url) as bus:
            assert await bus.nats.jetstream().streams_info() == []

    async def test_a_stream_that_does_not_fit(self, settings: Settings) -> None:
        async with connect(settings.nats_url) as bus:
            await bus.nats.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], retention=RetentionPolicy.WORK_QUEUE
            )
            assert "retention" in wrong(await examine(settings))["stream"].detail

    async def test_a_stream_without_atomic_batches(self, settings: Settings) -> None:
        async with connect(settings.nats_url) as bus:
            await bus.nats.jetstream().add_stream(name="EVENTS", subjects=["events.>"])
            assert "not accept atomic batches" in wrong(await examine(settings))["stream"].detail

    @pytest.mark.usefixtures("service")
    async def test_a_service_without_a_sweeper(self, settings: Settings) -> None:
        found = wrong(await examine(settings))
        assert found.keys() <= {"sweeper", "relay"}
        assert "--no-sweeper" in found["sweeper"].remedy

    async def test_what_piles_up_is_said(self, service: Service, settings: Settings) -> None:
        shed = Answer.refused(Overloaded(in_flight=1, retry_after_ms=1))
        service.dispatcher.stats.operations["db.tasks.get"].count_shed(shed)
        assert service.relay is not None
        service.relay.metrics.publish_errors = 2
        service.relay.metrics.last_error = "no\nstream"
        [load] = [check for check in await examine(settings) if check.name == "load"]

        assert load.ok
        assert load.detail == (
            "0 requests in flight, 1 shed, 0 wait for a connection, 2 publish errors; "
            "the relay's last interruption: no stream"
        )


class TestKeys:
    """Of the service's keys and of the credentials that need them."""

    async def test_none_and_none_needed(self, service: Service, settings: Settings) -> None:
        assert service.keys.ids == ()
        found = await _check("keys", settings)
        assert (found.ok, found.detail) == (True, "none, and no credentials that need one")

    @pytest.mark.parametrize(
        ("keys", "ok", "said"),
        [
            ([("old", OLD)], True, "1, old encrypts; 1 credentials, 0 to be encrypted again"),
            (
                [("new", NEW), ("old", OLD)],
                True,
                "2, new encrypts; 1 credentials, 1 to be encrypted again",
            ),
            ([("new", NEW)], False, "1 of 1 credentials need old, which no process has"),
            ([], False, "1 of 1 credentials need old, which no process has"),
            (
                [("old", "c2hvcnQ=")],
                False,
                "credentials cannot be used: key old has 5 bytes, not 32",
            ),
        ],
    )
    async def test_what_the_keys_can_read(
        self,
        settings: Settings,
        registry: Registry,
        keys: list[tuple[str, str]],
        ok: bool,
        said: str,
    ) -> None:
        urls = settings.database_url, settings.nats_url
        async with serving(registry, *urls, credentials_keys=f"old:{OLD}"), connect(urls[1]) as bus:
            account = await bus.call(CreateAccount(email="fleet@example.com"))
            planted: dict[str, Any] = {"token": "planted"}
            await bus.call(SetAccountCredentials(id=account.id, credentials=planted))

        given = ",".join(f"{name}:{key}" for name, key in keys)
        async with serving(registry, *urls, credentials_keys=given):
            found = await _check("keys", settings)

        assert (found.ok, found.detail) == (ok, said)
        assert found.ok or found.remedy
        assert not any(key in repr(found) for key in (OLD, NEW, "planted"))

    async def test_processes_that_differ(self, settings: Settings, registry: Registry) -> None:
        urls = settings.database_url, settings.nats_url
        async with (
            serving(registry, *urls, credentials_keys=f"old:{OLD},new:{NEW}"),
            serving(registry, *urls, credentials_keys=f"new:{NEW},old:{OLD}"),
        ):
            found = await _check("keys", settings)
        assert (found.ok, found.detail) == (False, "handler processes have different keys")


class TestDetection:
    @pytest.fixture
    def settings(self, settings: Settings, nats_server: EmbeddedNats) -> Settings:
        return settings.model_copy(update={"nats_system_url": nats_server.system_url})

    async def test_on(self, service: Service, settings: Settings) -> None:
        assert service.detector is not None
        async with asyncio.timeout(20):
            while service.detector.link.trouble:  # noqa: ASYNC110  other tasks make it well
                await asyncio.sleep(0.01)
        found = {check.name: check for check in await examine(settings)}
        assert found["detection"].detail == "lost connections are noticed by 1 process"
        assert found["detection"].ok

    async def test_off(self, service: Service, settings: Settings) -> None:
        assert service.detector is not None
        service.detector.stop()
        off = settings.model_copy(update={"nats_system_url": None})
        async with asyncio.timeout(20):
            while "off" not in (found := await _detection(off)).detail:
                assert found.detail.startswith("lost connections are")  # it has not ended yet
        assert found.ok
        assert "no handler process listens" in wrong(await examine(settings))["detection"].detail

    async def test_a_user_who_hears_nothing(self, settings: Settings, registry: Registry) -> None:
        wrong_user = settings.model_copy(update={"nats_system_url": settings.nats_url})
        service = Service(wrong_user, registry)
        await service.start()
        try:
            async with asyncio.timeout(20):
                while (
                    "does not belong to the system account"
                    not in (found := await _detection(wrong_user)).detail
                ):
                    assert not found.ok
        finally:
            await service.stop()
        assert "FLEETBUS_NATS_SYSTEM_URL" in found.remedy


async def _detection(settings: Settings) -> Check:
    return await _check("detection", settings)


async def _check(name: str, settings: Settings) -> Check:
    return next(check for check in await examine(settings) if check.name == name)


class TestStream:
    async def test_foreign_messages_are_told_for_a_while(
        self, complete: Settings, db: AsyncConnection
    ) -> None:
        async with client_of(complete.nats_url) as client:
            await client.jetstream().publish("events.x\u00e9", b"")
            async with connect(complete.nats_url, timeout=10) as bus:
                await bus.call(CreateTask(name="x"))

            async def is_told() -> bool:
                return "events" in wrong(await examine(complete))

            await eventually(is_told)
        found = wrong(await examine(complete))["events"]
        assert "1 foreign messages were removed from the stream" in found.detail
        assert "let nobody but the relay do it" in found.remedy
        await db.execute(
            text("UPDATE bus.foreign_messages SET last_removed_at = now() - interval '2 hours'")
        )
        assert "events" not in wrong(await examine(complete))

    async def test_its_limits_are_told(self, complete: Settings) -> None:
        async def detail() -> str:
            return next(c.detail for c in await examine(complete) if c.name == "stream")

        assert "it grows without limit (FLEETBUS_STREAM_MAX_AGE_DAYS" in await detail()
        async with client_of(complete.nats_url) as client:
            js = client.jetstream()
            config = (await js.stream_info("EVENTS")).config
            await js.update_stream(config.evolve(max_age=86_400, max_bytes=2**30))
        assert "it drops events older than 1 days and events beyond 1024.0 MiB" in await detail()

    async def test_a_full_one_that_takes_nothing_new(self, complete: Settings) -> None:
        async with client_of(complete.nats_url) as client:
            js = client.jetstream()
            config = (await js.stream_info("EVENTS")).config
            await js.update_stream(config.evolve(max_msgs=1, discard=DiscardPolicy.NEW))
            async with connect(complete.nats_url, timeout=10) as bus:
                for number in range(3):
                    await bus.call(CreateTask(name=f"x{number}"))

            async def is_told() -> bool:
                return {"stream", "load"} <= wrong(await examine(complete)).keys()

            await eventually(is_told, within=60)  # the relay waits longer each time
            found = wrong(await examine(complete))
            assert "it is full" in found["stream"].detail
            assert "--discard old" in found["stream"].remedy
            assert "the relay is stopped by:" in found["load"].detail
            assert "--discard old" in found["load"].remedy
            await js.update_stream(config)
