"""What the service says about itself: over the bus, and as documents."""

import json
from typing import Any

import jsonschema
import pydantic_core
import pytest

from bus.contract import asyncapi as _asyncapi
from bus.contract.catalogue import Catalogue, Context
from bus.contract.errors import EVERYWHERE, InvalidRequest, InvalidTransition
from bus.contract.fields import Version
from bus.contract.refusals import Refusal
from bus.contract.schemas import DIALECT
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from contracts.meta.meta import (
    DescribeOperation,
    GetAsyncApi,
    ListOperations,
    OperationDescription,
    OperationNotFound,
)
from contracts.planning.tasks import CompleteTask
from fleetbus.client import Bus
from tests.laws.declaring import CONTRACT, execute, forgotten

MAX_PAYLOAD = 1024 * 1024

Json = dict[str, Any]


@pytest.fixture
def catalogue(registry: Registry) -> Catalogue:
    return registry.catalogue


def references(document: Any) -> set[str]:
    """Every ``$ref`` in a document."""
    if isinstance(document, list):
        return set().union(*map(references, document))
    if not isinstance(document, dict):
        return set()
    found = set().union(*map(references, document.values()))
    return found | {document["$ref"]} if isinstance(document.get("$ref"), str) else found


def resolved(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def schemas_of(description: OperationDescription) -> list[Json]:
    errors = [error.body for error in description.errors]
    events = [event.body for event in description.events]
    return [description.request, description.reply, *errors, *events]


class TestListOperations:
    async def test_lists_all(self, bus: Bus, catalogue: Catalogue) -> None:
        page = await bus.call(ListOperations())
        subjects = [item.subject for item in page.items]
        assert subjects == [operation.declared.subject for operation in catalogue.operations]
        assert page.next_cursor is None

    async def test_says_of_each_what_is_declared(self, bus: Bus) -> None:
        page = await bus.call(ListOperations())
        [item] = [item for item in page.items if item.subject == "db.tasks.complete"]
        declared = CompleteTask.declared
        assert item.model_dump() == {
            "subject": "db.tasks.complete",
            "kind": "command",
            "context": "planning",
            "summary": declared.summary,
            "errors": [error.type for error in declared.errors],
            "emits": [event.fact.type for event in declared.emits],
            "transactional": True,
        }

    async def test_takes_no_fields(self, bus: Bus) -> None:
        answer = await bus.nats.request(
            "db.meta.operations", b'{"context": "planning"}', timeout=10
        )
        assert answer.headers is not None
        assert answer.headers["Nats-Service-Error-Code"] == "400"


class TestDescribeOperation:
    async def test_describes_what_is_declared(self, bus: Bus) -> None:
        told = await bus.call(DescribeOperation(subject="db.tasks.complete"))
        assert (told.kind, told.context) == ("command", "planning")
        assert told.summary == CompleteTask.declared.summary
        assert told.description.startswith(told.summary)
        assert told.request["required"] == ["id"]
        assert "attempt that is over" in told.request["properties"]["attempt"]["description"]
        assert told.request["additionalProperties"] is False
        assert told.reply["title"] == "Task"
        errors = {error.type: error for error in told.errors}
        possible: list[type[Refusal]] = [*CompleteTask.declared.errors, *EVERYWHERE]
        assert list(errors) == [error.type for error in possible]
        assert errors["stale_attempt"].declared
        assert not errors["invalid_request"].declared
        assert errors["overloaded"].retryable
        assert [event.type for event in told.events] == [
            event.fact.type for event in CompleteTask.declared.emits
        ]
        assert told.events[0].subject == "events.task.completed.{id}"

    async def test_every_operation_has_sound_schemas_complete_in_themselves(
        self, bus: Bus, catalogue: Catalogue
    ) -> None:
        found: dict[str, dict[str, Any]] = {}
        for operation in catalogue.operations:
            told = await bus.call(DescribeOperation(subject=operation.declared.subject))
            found |= {json.dumps(schema): schema for schema in schemas_of(told)}

        assert len(found) > 2 * len(catalogue.operations)
        for schema in found.values():
            assert schema["$schema"] == DIALECT
            jsonschema.Draft202012Validator.check_schema(schema)
            for reference in references(schema):
                resolved(schema, reference)

    async def test_every_example_is_valid(self, bus: Bus, catalogue: Catalogue) -> None:
        for operation in catalogue.operations:
            told = await bus.call(DescribeOperation(subject=operation.declared.subject))
            jsonschema.validate(told.example, told.request)
            operation.model_validate_json(pydantic_core.to_json(told.example))

    async def test_its_own_reply_is_as_it_describes(self, bus: Bus) -> None:
        told = await bus.call(DescribeOperation(subject="db.meta.describe"))
        answer = await bus.nats.request(
            "db.meta.describe", b'{"subject": "db.tasks.complete"}', timeout=10
        )
        jsonschema.validate(json.loads(answer.data), told.reply)

    async def test_problem_documents_are_as_it_describes(self, bus: Bus) -> None:
        told = await bus.call(DescribeOperation(subject="db.tasks.complete"))
        [body] = [e.body for e in told.errors if e.type == "invalid_transition"]
        refusal = InvalidTransition(
            entity="task", id=uuid7(), from_="pending", to="completed", expected="in_progress"
        )
        problem = json.loads(pydantic_core.to_json(refusal.problem()))
        jsonschema.validate(problem, body)
        for wrong in ({"type": "other"}, {"status": 400}, {"from": 1}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(problem | wrong, body)

    async def test_unknown_operation_is_refused(self, bus: Bus) -> None:
        with pytest.raises(OperationNotFound) as refusal:
            await bus.call(DescribeOperation(subject="db.tasks.wave"))
        assert refusal.value.subject == "db.tasks.wave"
        assert refusal.value.status == 404

    async def test_needs_a_subject(self, bus: Bus) -> None:
        answer = await bus.nats.request("db.meta.describe", b"{}", timeout=10)
        problem = json.loads(answer.data)
        assert problem["type"] == InvalidRequest.type
        assert problem["errors"] == [{"field": "subject", "message": "Field required"}]


class TestGetAsyncApi:
    async def test_reply_is_the_document(self, bus: Bus, catalogue: Catalogue) -> None:
        answer = await bus.nats.request("db.meta.asyncapi", timeout=10)
        document = json.loads(answer.data)
        assert document["asyncapi"] == "3.0.0"
        assert document["defaultContentType"] == "application/json"
        version = document["info"]["version"]
        assert document == json.loads(json.dumps(_asyncapi.document(catalogue, version)))

    async def test_client_reads_it(self, bus: Bus) -> None:
        document = await bus.call(GetAsyncApi())
        assert document.default_content_type == "application/json"
        assert "db.meta.asyncapi" in document.channels


@pytest.fixture
def document(catalogue: Catalogue) -> Json:
    return _asyncapi.document(catalogue, "1.0.0")


class TestAsyncApi:
    def test_every_reference_leads_somewhere(self, document: Json) -> None:
        for reference in references(document):
            assert resolved(document, reference) is not None, reference

    def test_every_operation_is_received_and_answered(
        self, document: Json, catalogue: Catalogue
    ) -> None:
        for operation in catalogue.operations:
            declared = operation.declared
            described = document["operations"][declared.subject]
            assert described["action"] == "receive"
            channel = resolved(document, described["channel"]["$ref"])
            assert channel["address"] == declared.subject
            answers = [
                resolved(document, message["$ref"]) for message in described["reply"]["messages"]
            ]
            assert len(answers) == 1 + len(declared.errors) + len(EVERYWHERE)
            tags = [resolved(document, tag["$ref"])["name"] for tag in described["tags"]]
            assert tags == [declared.context]

    def test_every_event_is_sent_with_its_id_in_the_subject(
        self, document: Json, catalogue: Catalogue
    ) -> None:
        for event in catalogue.events:
            described = document["operations"][f"events.{event.fact.type}"]
            assert described["action"] == "send"
            channel = resolved(document, described["channel"]["$ref"])
            assert channel["address"] == f"events.{event.fact.type}.{{id}}"
            assert list(channel["parameters"]) == ["id"]

    def test_headers_are_the_protocol(self, document: Json) -> None:
        request = document["channels"]["db.tasks.complete"]["messages"]["request"]
        headers = resolved(document, request["headers"]["$ref"])
        assert headers["properties"].keys() == {
            "Nats-Msg-Id",
            "Fleet-Deadline",
            "Fleet-Dry-Run",
            "traceparent",
        }
        event = document["channels"]["events.task.completed"]["messages"]["event"]
        headers = resolved(document, event["headers"]["$ref"])
        assert {"ce-id", "ce-type", "Nats-Msg-Id", "Fleet-Position"} <= set(headers["required"])
        assert "Fleet-Cause" in headers["properties"]

    def test_schemas_are_sound(self, document: Json) -> None:
        for name, schema in document["components"]["schemas"].items():
            # AsyncAPI's own schema language is a superset of draft 7.
            jsonschema.Draft7Validator.check_schema(schema)
            assert "$defs" not in schema, name

    def test_two_hundred_operations_fit_one_message(self, catalogue: Catalogue) -> None:
        with forgotten():
            contexts = (*catalogue.contexts, waves(200 - len(catalogue.operations)))
            document = _asyncapi.document(Catalogue(contexts), "1.0.0")
        assert len(pydantic_core.to_json(document)) < MAX_PAYLOAD - 4096


WAVE = '''
class Wave{n}Refused(Conflict, detail="task {{id}} does not wave"):
    """The task is in no mood to wave."""

    id: TaskId


class TaskWaved{n}(Event, type="task.waved_{n}"):
    """A task waved."""

    task: Task


class WaveTask{n}(
    Command[Task],
    subject="db.tasks.wave_{n}",
    errors=(TaskNotFound, InvalidTransition, Wave{n}Refused),
    emits=(TaskWaved{n},),
):
    """Wave to whoever depends on the task; this says at some length what that is good for."""

    id: TaskId
    version: Version | None = None
    name: Title
    description: Markdown | None = Field(None, description="What the wave is to mean.")
    category: TaskCategory = "execute"
    priority: TaskPriority = "medium"
    position: Position = Field(0, description="Where in the line it waves; smaller comes first.")
    result: Json | None = None
'''


def waves(count: int) -> Context:
    """So many operations of some size, each with an error and an event of its own."""
    operations, events = [], []
    for n in range(count):
        declared = execute(WAVE.format(n=n), CONTRACT, Version=Version)
        operations.append(declared[f"WaveTask{n}"])
        events.append(declared[f"TaskWaved{n}"])
    return Context("waves", "Waves.", tuple(operations), tuple(events))
