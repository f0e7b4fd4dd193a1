"""What came of runs, decided without looking anything up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from bus.handling import before, reported, values_of
from contracts.health.test_definitions import TestDefinition
from contracts.health.test_runs import (
    Outcome,
    RecordedItem,
    ResultContradictsExpectation,
    TestRun,
)


def refuse_contradiction(outcome: Outcome, definition_id: str, expected_status: int) -> None:
    """Refuse a success whose HTTP status is another one than is expected."""
    met = (outcome.result or {}).get("status_code")
    if outcome.status == "success" and isinstance(met, int) and met != expected_status:
        raise ResultContradictsExpectation(
            test_definition_id=definition_id, status_code=met, expected_status=expected_status
        )


def duration_ms(start: datetime, end: datetime) -> int:
    """The time between in whole milliseconds; never negative, whatever clocks do."""
    return max(0, (end - start) // timedelta(milliseconds=1))


def recorded_run(
    item: RecordedItem,
    definition: TestDefinition,
    *,
    id_: UUID,
    session_id: UUID | None,
    now: datetime,
) -> TestRun:
    """The run that a record describes, from its start to its end."""
    refuse_contradiction(item, definition.id, definition.expected_status)

    completed_at = reported(item.completed_at or now, now)
    started_at = before(completed_at, timedelta(milliseconds=item.duration_ms or 0))
    given: dict[str, Any] = values_of(item, "id", "session_id", "completed_at")
    return TestRun.first(
        id=id_,
        now=now,
        **given,
        session_id=session_id,
        expected_status=definition.expected_status,
        started_at=started_at,
        completed_at=completed_at,
        timeout_at=started_at + timedelta(seconds=definition.timeout_seconds),
    )
