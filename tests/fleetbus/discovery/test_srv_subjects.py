"""Who answers to which subject, and for how long."""

from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from bus.contract.catalogue import Catalogue
from bus.kit.nats_io import flush
from bus.running.stats import Stats
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.discovery.srv import Discovery
from tests.fleetbus.discovery.asking import asked, connected, planning, registry_of, stats_of, until


class TestSubjects:
    @pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
    async def test_every_service_answers_when_none_is_named(
        self, discovery: Discovery, client: Client, catalogue: Catalogue, verb: str
    ) -> None:
        answers = await asked(client, f"$SRV.{verb}", len(discovery.services))
        assert [answer["name"] for answer in answers] == [c.name for c in catalogue.contexts]
        assert len({answer["id"] for answer in answers}) == len(answers)

    @pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
    async def test_one_answers_by_name_and_by_id(
        self, discovery: Discovery, client: Client, verb: str
    ) -> None:
        for service in discovery.services:
            by_name = await asked(client, f"$SRV.{verb}.{service.name}", 1)
            by_id = await asked(client, f"$SRV.{verb}.{service.name}.{service.id}", 1)
            assert by_name == by_id
            assert by_id[0]["id"] == service.id

    async def test_whom_nobody_knows_has_no_responders(
        self, discovery: Discovery, client: Client
    ) -> None:
        """As with any NATS service: the caller learns it at once, not by a timeout."""
        first, second = discovery.services[:2]
        for subject in ("nobody", f"nobody.{first.id}", f"{first.name}.x", f"{first.name}.x.y"):
            with pytest.raises(NoRespondersError):
                await client.request(f"$SRV.INFO.{subject}", timeout=5)
        with pytest.raises(NoRespondersError):
            await client.request(f"$SRV.INFO.{first.name}.{second.id}", timeout=5)

    @pytest.mark.parametrize("subject", ["$SRV.SCHEMA", "$SRV.info", "$SRV.SCHEMA.planning"])
    async def test_other_verbs_are_left_alone(
        self, discovery: Discovery, client: Client, subject: str
    ) -> None:
        assert await asked(client, subject, 0) == []
        await planning(client, "PING")

    async def test_request_without_reply_subject_is_ignored(
        self, discovery: Discovery, client: Client
    ) -> None:
        await client.publish("$SRV.PING", b"\xff{")
        await planning(client, "PING")

    async def test_all_processes_answer(
        self, nats_url: str, client: Client, catalogue: Catalogue
    ) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                own = await connected(nats_url)
                stack.push_async_callback(own.close)
                discovery = Discovery(own, registry_of(catalogue), stats_of(catalogue))
                await discovery.start()
                stack.push_async_callback(discovery.stop)

            answers = await asked(client, "$SRV.INFO.planning", 3)

        assert len({answer["id"] for answer in answers}) == 3


class TestLifecycle:
    async def test_subscriptions_are_few(self, discovery: Discovery) -> None:
        assert len(discovery._subscriptions) == 1 + 2 * len(discovery.services)

    async def test_stopped_answers_nobody(self, discovery: Discovery, client: Client) -> None:
        await discovery.stop()
        with pytest.raises(NoRespondersError):
            await client.request("$SRV.PING", timeout=5)
        await discovery.stop()

    async def test_answer_that_cannot_be_sent_does_not_end_it(
        self, discovery: Discovery, client: Client, stats: Stats
    ) -> None:
        figures = stats.operations.pop("db.tasks.get")
        answers = await asked(client, "$SRV.STATS", len(discovery.services) - 1)
        assert "planning" not in {answer["name"] for answer in answers}

        stats.operations["db.tasks.get"] = figures

        await planning(client, "STATS")

    async def test_survives_the_server(self, own_nats: EmbeddedNats, catalogue: Catalogue) -> None:
        async with AsyncExitStack() as stack:
            own, client = await connected(own_nats.url), await connected(own_nats.url)
            stack.push_async_callback(own.close)
            stack.push_async_callback(client.close)
            discovery = Discovery(own, registry_of(catalogue), stats_of(catalogue))
            await discovery.start()
            before = await planning(client, "PING")

            await own_nats.kill()
            await until(lambda: not (own.is_connected or client.is_connected))
            await own_nats.start()
            await until(lambda: own.is_connected and client.is_connected)

            await flush(own)
            assert await planning(client, "PING") == before

    async def test_stopped_without_a_server_stays_stopped(
        self, own_nats: EmbeddedNats, catalogue: Catalogue
    ) -> None:
        own = await connected(own_nats.url)
        discovery = Discovery(own, registry_of(catalogue), stats_of(catalogue))
        await discovery.start()

        await own_nats.kill()
        await until(lambda: not own.is_connected)
        await discovery.stop()
        await own_nats.start()

        await until(lambda: own.is_connected)
        with pytest.raises(NoRespondersError):
            await own.request("$SRV.PING", timeout=5)
        await own.close()
