"""Discovery on the wire, as ADR-32 and its schemas have it."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest
from nats.aio.client import Client

from bus.contract.catalogue import Catalogue, Context
from bus.contract.errors import Overloaded
from bus.contract.operation import Operation
from bus.contract.refusals import Refusal
from bus.running.calls import Answer
from bus.running.stats import Stats
from contracts.planning.tasks import CompleteTask
from fleetbus.server.discovery.srv import Discovery, semantic_version
from tests.fleetbus.discovery.asking import Json, asked, connected, planning, registry_of, stats_of

SCHEMAS = Path(__file__).parents[4] / "shared" / "data" / "nats-micro-schemas"

IDENTITY = {"type", "name", "id", "version", "metadata"}
ENDPOINT = {"name", "subject", "queue_group"}
FIGURES = {"num_requests", "num_errors", "last_error", "processing_time", "average_processing_time"}


def endpoint(answer: Json, name: str) -> Json:
    [found] = [endpoint for endpoint in answer["endpoints"] if endpoint["name"] == name]
    return found  # type: ignore[no-any-return]  # JSON


def answered(refusal: Refusal | None = None) -> Answer:
    return Answer.refused(refusal) if refusal else Answer(200, b"{}")


class TestReplies:
    @pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
    async def test_validate_against_the_published_schemas(
        self, discovery: Discovery, client: Client, verb: str
    ) -> None:
        path = SCHEMAS / f"{verb.lower()}_response.json"
        if not path.exists():
            pytest.skip("the io.nats.micro.v1 schemas are not beside the repository")
        validator = jsonschema.Draft7Validator(
            json.loads(path.read_text()), format_checker=jsonschema.FormatChecker()
        )
        for answer in await asked(client, f"$SRV.{verb}", len(discovery.services)):
            validator.validate(answer)

    async def test_ping_says_who_is_there(self, discovery: Discovery, client: Client) -> None:
        answer = await planning(client, "PING")
        assert answer.keys() == IDENTITY
        assert answer["type"] == "io.nats.micro.v1.ping_response"
        assert (answer["name"], answer["version"]) == ("planning", "1.2.3")
        assert answer["metadata"] == {}
        assert re.fullmatch(r"[0-9A-Za-z]{22}", answer["id"])

    async def test_info_says_what_it_offers(
        self, discovery: Discovery, client: Client, catalogue: Catalogue
    ) -> None:
        [context] = [context for context in catalogue.contexts if context.name == "planning"]
        answer = await planning(client, "INFO")
        assert answer.keys() == IDENTITY | {"description", "endpoints"}
        assert answer["type"] == "io.nats.micro.v1.info_response"
        assert answer["description"] == context.summary
        assert len(answer["endpoints"]) == len(context.operations)
        assert endpoint(answer, "tasks_complete") == {
            "name": "tasks_complete",
            "subject": "db.tasks.complete",
            "queue_group": "fleetbus",
            "metadata": {
                "kind": "command",
                "summary": CompleteTask.declared.summary,
                "emits": ",".join(event.fact.type for event in CompleteTask.declared.emits),
                "errors": ",".join(error.type for error in CompleteTask.declared.errors),
            },
        }
        assert endpoint(answer, "tasks_get")["metadata"] == {
            "kind": "query",
            "summary": "Get one task by its id.",
            "emits": "",
            "errors": "task_not_found",
        }

    async def test_stats_say_what_it_has_done(
        self, discovery: Discovery, client: Client, stats: Stats
    ) -> None:
        figures = stats.operations["db.tasks.get"]
        figures.count(answered(), 3_000)
        figures.count(answered(Overloaded(in_flight=1, retry_after_ms=1)), 1_001)
        figures.in_flight = 2

        answer = await planning(client, "STATS")

        assert answer.keys() == IDENTITY | {"started", "endpoints"}
        assert answer["type"] == "io.nats.micro.v1.stats_response"
        started = datetime.fromisoformat(answer["started"])
        assert started == stats.started
        assert started.utcoffset() == timedelta(0)
        assert started <= datetime.now(UTC)
        got = endpoint(answer, "tasks_get")
        data = got.pop("data")
        assert got == {
            "name": "tasks_get",
            "subject": "db.tasks.get",
            "queue_group": "fleetbus",
            "num_requests": 2,
            "num_errors": 1,
            "last_error": "429:overloaded",
            "processing_time": 4_001,
            "average_processing_time": 2_000,
        }
        assert data["in_flight"] == 2
        assert data["errors_by_type"] == {"overloaded": 1}
        assert data.keys() >= {"p50_ns", "p99_ns", "shed"}

    async def test_stats_of_what_was_never_called_are_zero(
        self, discovery: Discovery, client: Client
    ) -> None:
        for got in (await planning(client, "STATS"))["endpoints"]:
            assert got.keys() == ENDPOINT | FIGURES | {"data"}
            assert {got[name] for name in FIGURES} == {0, ""}


class TestSizes:
    async def test_eighty_endpoints_fit_one_message_with_room(
        self, nats_url: str, client: Client
    ) -> None:
        declared = replace(CompleteTask.declared, summary="s" * 200)
        waves = [
            replace(declared, subject=f"db.tasks.wave_{n}", verb=f"wave_{n}") for n in range(80)
        ]
        operations = tuple(
            cast("type[Operation[Any]]", SimpleNamespace(declared=wave)) for wave in waves
        )
        catalogue = Catalogue((Context("waves", "Eighty of them.", operations, ()),))
        stats = stats_of(catalogue)
        for figures in stats.operations.values():
            figures.errors_by_type.update(
                {f"some_error_of_the_operation_{n}": n for n in range(15)}
            )
        own = await connected(nats_url)
        discovery = Discovery(own, registry_of(catalogue), stats)
        await discovery.start()

        sizes = [
            len((await client.request(f"$SRV.{verb}", timeout=10)).data)
            for verb in ("INFO", "STATS")
        ]

        await discovery.stop()
        await own.close()
        assert max(sizes) < 100_000
        assert client.max_payload == 1024 * 1024


@pytest.mark.parametrize(
    ("version", "semantic"),
    [
        ("0.1.0", "0.1.0"),
        ("2.1", "2.1.0"),
        ("1.2.3rc1", "1.2.3-rc1"),
        ("0.2.0.dev03+g12ab.7", "0.2.0-dev03+g12ab.7"),
    ],
)
def test_versions_are_semantic(version: str, semantic: str) -> None:
    assert semantic_version(version) == semantic
