"""The AsyncAPI documents: of everything, and of each context by itself."""

from typing import Any

import jsonschema
import pydantic_core
import pytest

from bus.contract import asyncapi as _asyncapi
from bus.contract.catalogue import Catalogue, Context
from bus.contract.errors import EVERYWHERE
from bus.contract.fields import Version
from bus.running.registry import Registry
from fleetbus import domain
from tests.laws.declaring import CONTRACT, execute, forgotten
from tests.meta.references import references, resolved

MAX_PAYLOAD = 1024 * 1024

Json = dict[str, Any]


@pytest.fixture
def catalogue(registry: Registry) -> Catalogue:
    return registry.catalogue


EVERYTHING = "everything"


@pytest.fixture(params=[EVERYTHING, *(context.name for context in domain.catalogue().contexts)])
def described(request: pytest.FixtureRequest, catalogue: Catalogue) -> Catalogue:
    """What a document is of: all contexts, or one."""
    return catalogue if request.param == EVERYTHING else catalogue.only(request.param)


@pytest.fixture
def document(catalogue: Catalogue, described: Catalogue) -> Json:
    context = None if described is catalogue else described.contexts[0].name
    return _asyncapi.document(catalogue, "1.0.0", context)


class TestAsyncApi:
    def test_every_reference_leads_somewhere(self, document: Json) -> None:
        for reference in references(document):
            assert resolved(document, reference) is not None, reference

    def test_every_operation_is_received_and_answered(
        self, document: Json, described: Catalogue
    ) -> None:
        for operation in described.operations:
            declared = operation.declared
            entry = document["operations"][declared.subject]
            assert entry["action"] == "receive"
            channel = resolved(document, entry["channel"]["$ref"])
            assert channel["address"] == declared.subject
            answers = [
                resolved(document, message["$ref"]) for message in entry["reply"]["messages"]
            ]
            assert len(answers) == 1 + len(declared.errors) + len(EVERYWHERE)
            tags = [resolved(document, tag["$ref"])["name"] for tag in entry["tags"]]
            assert tags == [declared.context]

    def test_every_event_is_sent_with_its_id_in_the_subject(
        self, document: Json, described: Catalogue
    ) -> None:
        for event in described.events:
            entry = document["operations"][f"events.{event.fact.type}"]
            assert entry["action"] == "send"
            channel = resolved(document, entry["channel"]["$ref"])
            assert channel["address"] == f"events.{event.fact.type}.{{id}}"
            assert list(channel["parameters"]) == ["id"]

    def test_what_it_emits_is_in_it(self, document: Json, described: Catalogue) -> None:
        for operation in described.operations:
            entry = document["operations"][operation.declared.subject]
            emitted = [reference["$ref"] for reference in entry.get("x-emits", [])]
            types = [event.fact.type for event in operation.declared.emits]
            assert emitted == [f"#/operations/events.{type_}" for type_ in types]
            assert all(resolved(document, reference) for reference in emitted)

    def test_has_nothing_of_others(self, document: Json, described: Catalogue) -> None:
        emitted = {event for o in described.operations for event in o.declared.emits}
        events = {event.fact.type for event in {*described.events, *emitted}}
        assert set(document["operations"]) == {
            *(operation.declared.subject for operation in described.operations),
            *(f"events.{type_}" for type_ in events),
        }

    def test_headers_are_the_protocol(self, catalogue: Catalogue) -> None:
        document = _asyncapi.document(catalogue, "1.0.0")
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

    def test_an_event_of_another_context_is_there_with_its_tag(self, catalogue: Catalogue) -> None:
        [event] = [e for e in catalogue.events if e.fact.type == "task.created"]
        with forgotten():
            declared = execute(FOREIGN, "contracts.health.checks", TaskCreated=event)
            context = Context("health", "Health.", (declared["PlanCheck"],), ())
            others = [c for c in catalogue.contexts if c.name != "health"]
            document = _asyncapi.document(Catalogue((context, *others)), "1.0.0", "health")
        assert set(document["operations"]) == {"db.checks.plan", "events.task.created"}
        assert set(document["components"]["tags"]) == {"health", "planning"}
        assert "Task" in document["components"]["schemas"]
        for reference in references(document):
            assert resolved(document, reference) is not None, reference

    def test_three_times_the_largest_context_fits_one_message(self, catalogue: Catalogue) -> None:
        sizes = {
            context.name: len(
                pydantic_core.to_json(_asyncapi.document(catalogue, "1.0.0", context.name))
            )
            for context in catalogue.contexts
        }
        assert max(sizes.values()) * 3 < MAX_PAYLOAD - 4096, sizes

    def test_two_hundred_operations_fit_one_message(self, catalogue: Catalogue) -> None:
        with forgotten():
            contexts = (*catalogue.contexts, waves(200 - len(catalogue.operations)))
            document = _asyncapi.document(Catalogue(contexts), "1.0.0")
        assert len(pydantic_core.to_json(document)) < MAX_PAYLOAD - 4096


FOREIGN = '''
class PlanCheck(Command[Task], subject="db.checks.plan", emits=(TaskCreated,)):
    """Plan a check as a task."""

    name: Title
'''

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
