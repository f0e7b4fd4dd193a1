"""``fleetbus describe`` and ``fleetbus export``: the contract for people and programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bus.contract.operation import Operation
from bus.contract.schemas import example_of
from fleetbus import domain
from fleetbus.cli.schemas import fields
from fleetbus.client import Bus
from tests.fleetbus.cli.program import fleetbus, one_line

CATALOGUE = domain.catalogue()


class TestDescribe:
    @pytest.mark.usefixtures("service")
    async def test_lists_the_operations_by_context(self, nats_url: str) -> None:
        ended = await fleetbus("describe", NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        lines = [line.strip() for line in ended.out.splitlines()]
        words = [line.split()[0] for line in lines]
        assert [o.declared.subject for o in CATALOGUE.operations] == [
            word for word in words if word.startswith("db.")
        ]
        assert {"meta", "planning"} <= set(lines)

    @pytest.mark.usefixtures("service")
    async def test_describes_an_operation(self, nats_url: str) -> None:
        ended = await fleetbus("describe", "db.tasks.complete", NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        text = one_line(ended.out)
        for said in (
            "db.tasks.complete (command, planning)",
            "Complete a task in progress",
            "id required uuid",
            "text, at most 20,000 characters or null",
            "Reply: Task",
            "404 task_not_found",
            "503 unavailable",
            "events.task.completed.{id}",
            "fleetbus call db.tasks.complete '{",
        ):
            assert said in text

    async def test_json_is_the_answer_of_the_service(self, bus: Bus, nats_url: str) -> None:
        body = b'{"subject": "db.tasks.get"}'
        expected = json.loads((await bus.nats.request("db.meta.describe", body, timeout=10)).data)
        ended = await fleetbus("describe", "db.tasks.get", "--json", NATS_URL=nats_url)
        assert json.loads(ended.out) == expected

    @pytest.mark.usefixtures("service")
    async def test_an_unknown_operation_has_neighbours(self, nats_url: str) -> None:
        ended = await fleetbus("describe", "db.task.get", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("there is no operation db.task.get; did you mean db.tasks.get")

    async def test_no_handlers(self, nats_url: str) -> None:
        ended = await fleetbus("describe", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert "no handler process is connected" in ended.err

    @pytest.mark.parametrize("operation", CATALOGUE.operations)
    def test_every_field_has_a_type_in_words(self, operation: type[Operation[Any]]) -> None:
        schema = operation.model_json_schema()
        found = fields(schema)
        assert {field.name for field in found} == set(schema.get("properties", {}))
        assert all(field.type and "$" not in field.type for field in found)


class TestExport:
    async def test_asyncapi_needs_no_server(self) -> None:
        ended = await fleetbus("export", "asyncapi", NATS_URL="nats://127.0.0.1:1")
        assert (ended.code, ended.err) == (0, "")
        document = json.loads(ended.out)
        assert document["asyncapi"] == "3.0.0"
        assert "db.tasks.get" in document["operations"]

    async def test_asyncapi_of_a_context(self) -> None:
        ended = await fleetbus("export", "asyncapi", "--context", "planning")
        assert (ended.code, ended.err) == (0, "")
        operations = json.loads(ended.out)["operations"]
        subjects = [o.declared.subject for o in CATALOGUE.only("planning").operations]
        assert [name for name in operations if name.startswith("db.")] == subjects

    async def test_jsonschema_of_a_context(self) -> None:
        ended = await fleetbus("export", "jsonschema", "--context", "planning")
        assert (ended.code, ended.err) == (0, "")
        document = json.loads(ended.out)
        Draft202012Validator.check_schema(document)
        planning = CATALOGUE.only("planning").operations
        assert list(document["operations"]) == [o.declared.subject for o in planning]

    async def test_an_unknown_context(self) -> None:
        ended = await fleetbus("export", "asyncapi", "--context", "plannin")
        assert (ended.code, ended.out) == (2, "")
        assert "there is no context plannin; there are agents, " in one_line(ended.err)

    async def test_jsonschema_validates_what_travels(self, tmp_path: Path) -> None:
        target = tmp_path / "schemas.json"
        ended = await fleetbus("export", "jsonschema", "--output", str(target))
        assert (ended.code, ended.out) == (0, "")
        document = json.loads(target.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(document)
        assert set(document["operations"]) == {o.declared.subject for o in CATALOGUE.operations}
        assert set(document["events"]) == {event.fact.type for event in CATALOGUE.events}
        for operation in CATALOGUE.operations:
            request = document["operations"][operation.declared.subject]["request"]
            validator = Draft202012Validator(request | {"$defs": document["$defs"]})
            validator.validate(example_of(operation))

    async def test_every_reference_leads_somewhere(self) -> None:
        text = (await fleetbus("export", "jsonschema")).out
        defs = json.loads(text)["$defs"]
        references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
        assert references <= defs.keys()

    async def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        target = tmp_path / "missing" / "asyncapi.json"
        ended = await fleetbus("export", "asyncapi", "--output", str(target))
        assert ended.code == 1
        assert ended.err == f"{target} cannot be written: No such file or directory\n"

    async def test_an_unknown_document(self) -> None:
        ended = await fleetbus("export", "openapi")
        assert ended.code == 2
        assert "asyncapi" in ended.err
