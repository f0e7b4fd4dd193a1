"""Every metric against work that is known, scraped as Prometheus would."""

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, Overloaded
from bus.running.calls import Answer
from bus.running.registry import Registry
from bus.storage.slots import RESERVE
from contracts.planning.projects import CreateProject, GetProject, ProjectNotFound
from fleetbus.client import Bus, connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.config import VERSION, Settings
from fleetbus.server.relay.relay import RECONCILE_SUBJECT
from fleetbus.server.service import Service
from tests.bus.outages import serving
from tests.fleetbus.monitoring.asking import scrape, scraped_until, watched
from tests.servers import migrate

CREATE, GET = "db.projects.create", "db.projects.get"

EVENT = """
    INSERT INTO bus.outbox (event_id, type, entity_id, data)
    VALUES (gen_random_uuid(), 'a.b', 'c', '{}')
"""


async def create(bus: Bus, *names: str) -> None:
    await asyncio.gather(
        *(bus.call(CreateProject(name=name, url=f"https://example.org/{name}")) for name in names)
    )


class TestRequests:
    async def test_by_status_and_by_type(self, bus: Bus, port: int) -> None:
        await create(bus, "a", "b", "c")
        with pytest.raises(AlreadyExists):
            await create(bus, "a")
        with pytest.raises(ProjectNotFound):
            await bus.call(GetProject(id=uuid4()))

        found = await scrape(port)

        assert found("requests_total", subject=CREATE, status="200") == 3
        assert found("requests_total", subject=CREATE, status="409") == 1
        assert found("requests_total", subject=GET, status="200") == 0
        assert found("requests_total", subject=GET, status="404") == 1
        assert found("request_errors_total", subject=CREATE, type="already_exists") == 1
        assert found("request_errors_total", subject=GET, type="project_not_found") == 1
        assert found("requests_in_flight", subject=CREATE) == 0

    async def test_durations(self, bus: Bus, port: int, service: Service) -> None:
        await create(bus, "a", "b", "c")

        found = await scrape(port)

        name, labels = "request_duration_seconds", {"subject": CREATE}
        buckets = found.buckets(name, **labels)
        times = service.dispatcher.stats.operations[CREATE].times
        assert list(buckets.values()) == sorted(buckets.values())
        assert buckets[float("inf")] == found(f"{name}_count", **labels) == 3
        assert found(f"{name}_sum", **labels) == pytest.approx(times.total / 1e9)
        assert buckets[2**35 / 1e9] == 3
        longest = times.quantile(1) / 1e9
        assert all(count == 3 for bound, count in buckets.items() if bound >= longest)
        assert found(f"{name}_count", subject=GET) is None

    async def test_what_was_shed_has_no_duration(self, service: Service, port: int) -> None:
        shed = Answer.refused(Overloaded(in_flight=1, retry_after_ms=1))
        service.dispatcher.stats.operations[GET].count_shed(shed, "queries")

        found = await scrape(port)

        assert found("requests_shed_by_budget_total", budget="queries") == 1

        assert found("requests_shed_total", subject=GET) == 1
        assert found("requests_total", subject=GET, status="429") == 1
        assert found("request_duration_seconds_count", subject=GET) is None

    async def test_in_flight(self, service: Service, bus: Bus, port: int) -> None:
        async with AsyncExitStack() as taken:
            for _ in range(service.settings.pool_write):
                await taken.enter_async_context(service.database.connection())
            waiting = asyncio.create_task(create(bus, "a"))
            found = await scraped_until(
                port, lambda found: found("pool_waiting_transactions", pool="write") == 1
            )
            assert found("requests_in_flight", subject=CREATE) == 1
            assert found("pool_used_connections", pool="write") == service.settings.pool_write
            assert found("pool_used_connections", pool="read") == 0
            assert (
                found("pool_size_connections", pool="write")
                == service.settings.pool_write + RESERVE
            )
            assert (
                found("pool_size_connections", pool="read") == service.settings.pool_read + RESERVE
            )
        await waiting
        found = await scrape(port)
        assert found("requests_in_flight", subject=CREATE) == 0
        assert found("pool_waiting_transactions", pool="write") == 0

    async def test_sizes_of_batches(self, bus: Bus, port: int) -> None:
        await asyncio.gather(
            *(bus.call(GetProject(id=uuid4())) for _ in range(20)), return_exceptions=True
        )

        found = await scrape(port)

        name = "batch_size_requests"
        buckets = found.buckets(name, subject=GET)
        assert found(f"{name}_sum", subject=GET) == 20
        assert list(buckets) == [*(2.0**power for power in range(9)), float("inf")]
        assert 1 <= buckets[float("inf")] <= 20
        assert buckets[32] == buckets[float("inf")]

    async def test_who_it_is(self, port: int) -> None:
        found = await scrape(port)
        assert found("build_info", version=VERSION) == 1
        assert found("nats_connected") == found("database_up") == found("ready") == 1
        assert "process_resident_memory_bytes" in found.families


class TestEvents:
    async def test_published(self, bus: Bus, port: int) -> None:
        await create(bus, "a", "b", "c")

        found = await scraped_until(port, lambda found: found("outbox_published_position") == 3)

        assert found("relay_leader") == 1
        assert found("relay_takeovers_total") == 1
        assert found("relay_published_events_total") == 3
        assert found("relay_publish_errors_total") == 0
        assert found("outbox_backlog_events") == 0
        assert found("outbox_oldest_unpublished_seconds") == 0
        assert found("outbox_last_position") == 3

    async def test_without_a_relay_they_pile_up(
        self, settings: Settings, registry: Registry
    ) -> None:
        async with (
            serving(registry, settings.database_url, settings.nats_url, relay=False) as service,
            watched(service) as port,
            connect(settings.nats_url) as bus,
        ):
            await create(bus, *"abcde")
            found = await scraped_until(port, lambda found: found("outbox_backlog_events") == 5)
            older = await scraped_until(
                port,
                lambda later: (
                    (later("outbox_oldest_unpublished_seconds") or 0)
                    > (found("outbox_oldest_unpublished_seconds") or 0)
                ),
            )
        assert older("outbox_backlog_events") == older("outbox_last_position") == 5
        assert older("outbox_published_position") == older("outbox_hole_positions") == 0
        assert older("relay_leader") is None

    async def test_a_broker_that_takes_none(
        self, database_url: str, db: AsyncConnection, own_nats: EmbeddedNats, registry: Registry
    ) -> None:
        async with (
            serving(registry, database_url, own_nats.url) as service,
            watched(service) as port,
        ):
            # A comparison that meets the outage would end the lead before there is an event.
            await scraped_until(port, lambda found: found("comparison_missing_events") == 0)
            await scraped_until(port, lambda found: found("relay_leader") == 1)
            await own_nats.stop()
            await db.execute(text(EVENT))
            found = await scraped_until(
                port, lambda found: (found("relay_publish_errors_total") or 0) > 0
            )
            assert (found("relay_interruptions_total") or 0) > 0
            found = await scraped_until(port, lambda found: found("outbox_backlog_events") == 1)
            assert found("nats_connected") == found("ready") == 0
            await own_nats.start()
            found = await scraped_until(port, lambda found: found("outbox_backlog_events") == 0)
            assert found("relay_published_events_total") == 1


class TestJobs:
    async def test_each_that_ran(
        self, settings: Settings, registry: Registry, db: AsyncConnection
    ) -> None:
        await db.execute(
            text(
                "INSERT INTO bus.sweeps VALUES ('broken', to_timestamp(1e9), 1500, 'Error: no', 7)"
            )
        )
        async with (
            serving(registry, settings.database_url, settings.nats_url, sweeper=True) as service,
            watched(service) as port,
        ):
            found = await scraped_until(
                port, lambda found: found("job_failed", job="expire_task_leases") == 0
            )
        assert found("job_last_run_timestamp_seconds", job="broken") == 1e9
        assert found("job_last_duration_seconds", job="broken") == 1.5
        assert found("job_handled_total", job="broken") == 7
        assert found("job_failed", job="broken") == 1
        ran = found("job_last_run_timestamp_seconds", job="expire_task_leases")
        assert ran is not None
        assert ran > 1.7e9


class TestComparison:
    async def test_what_the_stream_lost_and_got_back(
        self, database_url: str, nats_url: str, registry: Registry
    ) -> None:
        async with (
            serving(registry, database_url, nats_url) as service,
            watched(service) as port,
            connect(nats_url) as bus,
        ):
            await create(bus, "a", "b")
            await scraped_until(port, lambda found: found("relay_published_events_total") == 2)
            await scraped_until(port, lambda found: found("comparison_state", state="ok") == 1)
            await bus.nats.jetstream().purge_stream("EVENTS")
            await bus.nats.publish(RECONCILE_SUBJECT)

            found = await scraped_until(
                port, lambda found: found("comparison_state", state="repaired") == 1
            )

        assert found("comparison_state", state="ok") == 0
        assert found("comparison_missing_events") == found("comparison_repaired_events") == 2
        assert found("relay_repaired_events_total") == 2
        assert (found("comparison_timestamp_seconds") or 0) > 1.7e9


class TestOutage:
    async def test_without_the_database_the_rest_is_told(
        self, own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
    ) -> None:
        await migrate(own_postgres.url)
        async with (
            serving(registry, own_postgres.url, nats_url, relay=False) as service,
            watched(service) as port,
            connect(nats_url) as bus,
        ):
            await create(bus, "a")
            found = await scraped_until(port, lambda found: found("outbox_last_position") == 1)
            assert found("database_up") == 1

            await own_postgres.stop("immediate")

            found = await scraped_until(port, lambda found: found("database_up") == 0)
            assert not [name for name in found.families if "outbox" in name or "job" in name]
            assert found("requests_total", subject=CREATE, status="200") == 1
            assert found("ready") == 0


class TestDocumentation:
    async def test_it_names_every_metric_and_no_other(
        self, settings: Settings, registry: Registry
    ) -> None:
        page = (Path(__file__).parents[3] / "docs" / "operating.md").read_text(encoding="utf-8")
        section = page.partition("## What to watch")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`[a-z].*?) \|", section, re.MULTILINE)
        named = set(re.findall(r"`(\w+)(?:\{[\w,]+\})?`", " ".join(rows)))
        async with (
            serving(registry, settings.database_url, settings.nats_url, sweeper=True) as service,
            watched(service) as port,
        ):
            found = await scraped_until(
                port,
                lambda found: (
                    found("job_failed", job="expire_task_leases") == 0
                    and found("comparison_missing_events") == 0
                ),
            )

        ours = [f for f in found.families.values() if f.name.startswith("fleetbus_")]

        assert named == {
            family.name.removeprefix("fleetbus_") + ("_total" if family.type == "counter" else "")
            for family in ours
        }
        assert all(family.documentation for family in ours)
