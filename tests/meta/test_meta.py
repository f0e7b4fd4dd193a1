"""What the service says about itself over the bus."""

import json
from typing import Any

import jsonschema
import pydantic_core
import pytest

from bus.contract import asyncapi as _asyncapi
from bus.contract.catalogue import Catalogue
from bus.contract.errors import EVERYWHERE, InvalidRequest, InvalidTransition, ReplyTooLarge
from bus.contract.refusals import Refusal
from bus.contract.schemas import DIALECT
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from contracts.meta.meta import (
    ContextNotFound,
    DescribeOperation,
    GetAsyncApi,
    ListOperations,
    OperationDescription,
)
from contracts.planning.tasks import CompleteTask
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.meta.references import references, resolved

Json = dict[str, Any]


@pytest.fixture
def catalogue(registry: Registry) -> Catalogue:
    return registry.catalogue


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

    async def test_of_a_context(self, bus: Bus, catalogue: Catalogue) -> None:
        for context in catalogue.contexts:
            document = await bus.call(GetAsyncApi(context=context.name))
            assert set(document.operations) >= {o.declared.subject for o in context.operations}
            version = document.info["version"]
            assert document.model_dump(mode="json") == json.loads(
                json.dumps(_asyncapi.document(catalogue, version, context.name))
            )

    async def test_null_is_the_whole(self, bus: Bus) -> None:
        whole = await bus.nats.request("db.meta.asyncapi", b"{}", timeout=10)
        null = await bus.nats.request("db.meta.asyncapi", b'{"context": null}', timeout=10)
        assert whole.data == null.data

    async def test_unknown_context(self, bus: Bus, catalogue: Catalogue) -> None:
        with pytest.raises(ContextNotFound) as refusal:
            await bus.call(GetAsyncApi(context="plannin"))
        names = [context.name for context in catalogue.contexts]
        assert (refusal.value.status, refusal.value.known) == (404, names)
        assert str(refusal.value).startswith("there is no context plannin; there are agents, ")

    async def test_too_large_for_a_message(
        self, bus: Bus, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replies = service.dispatcher._executor._replies
        monkeypatch.setattr(replies, "_max_payload", lambda: 256 * 1024)
        with pytest.raises(ReplyTooLarge) as refusal:
            await bus.call(GetAsyncApi())
        assert refusal.value.status == 413
        assert refusal.value.advice == "ask for one context, or run fleetbus export asyncapi"
        document = await bus.call(GetAsyncApi(context="planning"))
        assert "db.tasks.get" in document.operations
