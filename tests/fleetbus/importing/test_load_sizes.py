"""Whatever a plan says fits the service, or its beginning does."""

import json
from typing import Any

import pytest
from nats.errors import MaxPayloadError

from bus.contract.errors import FieldError, InvalidRequest
from bus.contract.refusals import Refusal
from contracts.planning.tasks import CreateManyTasks, ListTasks
from fleetbus.client import Bus
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Plan

ESCAPES = "\x1b" * 1_000_000
HUGE = [
    {
        "id": "a",
        "title": "\x01" * 2_000,
        "status": "closed",
        "description": ESCAPES,
        "design": "é\x02" * 200_000,
        "close_reason": ESCAPES,
    },
    {"id": "e", "title": "E", "issue_type": "epic", "description": ESCAPES},
    {"id": "e.1", "title": "\U0001f91d" * 600, "description": "\U0001f91d" * 200_000},
]


def plan_of(*records: dict[str, Any]) -> Plan:
    return read_beads(map(json.dumps, records))


class NarrowBus(Bus):
    """The service takes no request of more than 20,000 bytes."""

    refusal: Exception

    async def call(self, operation: Any, **options: Any) -> Any:
        large = len(operation.model_dump_json()) > 20_000
        if large and isinstance(operation, CreateManyTasks):
            raise self.refusal
        return await super().call(operation, **options)


async def test_the_largest_records_are_taken(bus: Bus) -> None:
    report = await load_plan(bus, plan_of(*HUGE))

    assert (report.tasks.created, report.phases.created) == (2, 1)
    assert {note.ref for note in report.notes if "description was cut" in note.text} == {
        "a",
        "e",
        "e.1",
    }
    assert (await load_plan(bus, plan_of(*HUGE))).unchanged


@pytest.mark.parametrize(
    "refusal",
    [
        MaxPayloadError(),
        InvalidRequest(errors=[FieldError(field="items.0.description", message="is too large")]),
    ],
    ids=["payload", "refused"],
)
async def test_what_the_service_does_not_take_is_stored_by_its_beginning(
    bus: Bus, refusal: Refusal | MaxPayloadError
) -> None:
    narrow = NarrowBus(bus.nats, timeout=10, attempt_timeout=5)
    narrow.refusal = refusal
    large = {"id": "a", "title": "T", "description": "x" * 50_000}
    report = await load_plan(narrow, plan_of(large, {"id": "b", "title": "U"}))

    assert report.tasks.created == 2
    assert [(sort, ref) for sort, ref, _ in report.remarks()] == [("differs", "a")]
    [stored] = (await bus.call(ListTasks(search="xxx"))).items
    assert (stored.description or "").endswith(" of 50,000 characters")
