"""What a process says of itself, in the data of one endpoint of the service ``meta``."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from nats.aio.client import Client

from bus.running.registry import Registry
from bus.storage.slots import RESERVE
from contracts.planning.projects import CreateProject
from fleetbus.client import Bus
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.config import Settings
from tests.bus.outages import frozen, serving
from tests.fleetbus.discovery.asking import Json, asked
from tests.servers import migrate

SCHEMA = (
    Path(__file__).parents[4] / "shared" / "data" / "nats-micro-schemas" / "stats_response.json"
)


async def stats_of_meta(client: Client) -> Json:
    answer = await client.request("$SRV.STATS.meta", timeout=10)
    return json.loads(answer.data)  # type: ignore[no-any-return]  # JSON


def process_in(answer: Json) -> Any:
    told = [endpoint["data"] for endpoint in answer["endpoints"]]
    [found] = [data["process"] for data in told if "process" in data]
    return found


async def test_pools_relay_outbox_and_jobs(bus: Bus, client: Client, settings: Settings) -> None:
    await bus.call(CreateProject(name="a", url="https://example.org/a"))

    async with asyncio.timeout(20):
        found = process_in(await stats_of_meta(client))
        while found["outbox"]["published_position"] != 1:
            await asyncio.sleep(0.1)
            found = process_in(await stats_of_meta(client))

    idle = {"in_use": 0, "waiting": 0}
    assert (found["draining"], found["in_flight"], found["shed"]) == (False, 0, 0)
    assert found["pools"] == {
        "write": {"size": settings.pool_write + RESERVE} | idle,
        "read": {"size": settings.pool_read + RESERVE} | idle,
        "expensive": {"size": settings.pool_expensive} | idle,
    }
    assert found["relay"] == {
        "leader": True,
        "takeovers": 1,
        "published": 1,
        "last_position": 1,
        "repaired": 0,
        "publish_errors": 0,
        "interruptions": 0,
        "last_error": "",
        "trouble": "",
        "foreign_messages": 0,
        "shortened": 0,
    }
    assert found["outbox"] == {
        "backlog": 0,
        "oldest_unpublished": 0,
        "published_position": 1,
        "last_position": 1,
        "holes": 0,
    }
    assert found["jobs"] == {}
    unused = {"ids": [], "problem": "no key for credentials is configured", "credentials": {}}
    assert found["keys"] == unused


@pytest.mark.usefixtures("service")
async def test_it_validates_against_the_published_schema(client: Client) -> None:
    if not SCHEMA.exists():
        pytest.skip("the io.nats.micro.v1 schemas are not beside the repository")
    jsonschema.Draft7Validator(
        json.loads(SCHEMA.read_text()), format_checker=jsonschema.FormatChecker()
    ).validate(await stats_of_meta(client))


async def test_a_database_that_stands_still_holds_up_no_other_answer(
    own_postgres: EmbeddedPostgres, nats_url: str, client: Client, registry: Registry
) -> None:
    await migrate(own_postgres.url)
    contexts = [context for context in registry.catalogue.contexts if context.operations]
    async with serving(registry, own_postgres.url, nats_url, relay=False):
        with frozen(own_postgres.pid):
            *others, last = await asked(client, "$SRV.STATS", len(contexts))

    assert {answer["name"] for answer in others} == {c.name for c in contexts} - {"meta"}
    found = process_in(last)
    assert (found["outbox"], found["jobs"], found["relay"]) == (None, None, None)
    assert found["keys"]["credentials"] is None
