"""Histories through the pure deciders of health."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.errors import InvalidTransition
from bus.kit.cron import due_times, next_due
from bus.kit.ids import uuid7
from contracts.health import checks, test_runs
from contracts.health.checks import AlreadyReported, CheckedWorker
from contracts.health.health import StatusCounts
from contracts.health.test_definitions import TestDefinition as Definition
from handlers.health._check_creation import new_check, new_worker_check
from handlers.health._check_expiry import expire_worker
from handlers.health._check_rules import close, count, nobody_left, tally
from handlers.health._health_status import health_status
from handlers.health._test_run_expiry import expire_run
from handlers.health.checks import report_worker_check
from handlers.health.states import CHECK, TEST_RUN, WORKER_CHECK
from handlers.health.test_runs import finish_test_run, record_test_run, start_test_run

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATUSES = st.sampled_from(["success", "failure", "skipped", "timeout"])
CODES = st.none() | st.integers(100, 599)
CRONS = st.sampled_from(["* * * * *", "*/7 * * * *", "0 3 * * *", "30 4 1 * *", "0 0 29 2 *"])
TIMES = st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  Hypothesis adds the zone
VERDICTS = st.sampled_from(["healthy", "degraded", "unhealthy", "critical", "silent"])


def definition(expected_status: int = 200) -> Definition:
    given = {"id": "a", "expected_status": expected_status, "timeout_seconds": 300}
    return Definition.trusted(dict.fromkeys(Definition.model_fields) | given)


@given(expected=st.integers(100, 599), status=STATUSES, code=CODES, recorded=st.booleans())
def test_no_success_contradicts_the_expectation(
    expected: int, status: Any, code: int | None, recorded: bool
) -> None:
    result: Any = None if code is None else {"status_code": code}
    if recorded:
        record = test_runs.RecordTestRun(test_definition_id="a", status=status, result=result)

        def decide() -> Any:
            return record_test_run(record, definition(expected), new_id=uuid7(), now=NOW)
    else:
        start = test_runs.StartTestRun(test_definition_id="a")
        run = start_test_run(start, definition(expected), new_id=uuid7(), now=NOW).entity
        finish = test_runs.FinishTestRun(id=run.id, status=status, result=result)

        def decide() -> Any:
            return finish_test_run(finish, run, now=NOW)

    if status == "success" and code not in {None, expected}:
        with pytest.raises(test_runs.ResultContradictsExpectation):
            decide()
    else:
        assert decide().entity.status == status


@given(status=STATUSES, again=STATUSES, late=st.timedeltas(timedelta(), timedelta(days=1)))
def test_a_run_ends_once(status: Any, again: Any, late: timedelta) -> None:
    start = test_runs.StartTestRun(test_definition_id="a")
    run = start_test_run(start, definition(), new_id=uuid7(), now=NOW).entity
    finish = test_runs.FinishTestRun(id=run.id, status=status)
    done = finish_test_run(finish, run, now=NOW + late).entity
    assert ("running", "finish", done.status) in TEST_RUN.edges()
    assert done.duration_ms == late // timedelta(milliseconds=1)
    with pytest.raises(InvalidTransition):
        finish_test_run(test_runs.FinishTestRun(id=run.id, status=again), done, now=NOW)
    with pytest.raises(InvalidTransition):
        expire_run(done, NOW)


@given(st.lists(VERDICTS, min_size=1, max_size=12), st.data())
def test_a_check_ends_with_its_last_worker_however_they_are_batched(
    verdicts: list[str], data: st.DataObject
) -> None:
    command = checks.StartCheck(trigger_type="cron", workers=[CheckedWorker(name="w", type="t")])
    check = new_check(command, len(verdicts), id_=uuid7(), now=NOW)
    done = []
    for number, verdict in enumerate(verdicts):
        part = new_worker_check(check, CheckedWorker(name=f"w{number}", type="t"), number)
        if verdict == "silent":
            done.append(expire_worker(part, NOW))
            continue
        request = checks.ReportWorkerCheck(worker_check_id=part.id, overall_status=verdict)  # type: ignore[arg-type]  # one of the literals
        done.append(report_worker_check(request, part, now=NOW).entity)
        with pytest.raises(AlreadyReported):
            report_worker_check(request, done[-1], now=NOW)
    assert {("pending", done_.status) for done_ in done} <= {
        (before, after) for before, _, after in WORKER_CHECK.edges()
    }
    while done:
        assert not nobody_left(check)
        size = data.draw(st.integers(1, len(done)))
        batch, done = done[:size], done[size:]
        check = count(check, tally(batch), NOW)
    assert nobody_left(check)
    decision = close(check, None, NOW)
    closed, [event] = decision.entity, decision.events
    good = sum(verdict in {"healthy", "degraded"} for verdict in verdicts)
    silent = verdicts.count("silent")
    assert (closed.workers_passed, closed.workers_completed) == (good, len(verdicts) - silent)
    expected = "timeout" if silent else "completed" if good == len(verdicts) else "failed"
    assert closed.status == expected
    assert isinstance(event, checks.CheckTimedOut if silent else checks.CheckCompleted)
    assert ("running", "close", closed.status) in CHECK.edges()
    with pytest.raises(InvalidTransition):
        close(closed, None, NOW)


@given(CRONS, TIMES, st.timedeltas(timedelta(), timedelta(days=40)))
def test_after_a_pause_the_latest_missed_time(cron: str, start: datetime, pause: timedelta) -> None:
    first = next_due(cron, start)
    now = first + pause
    latest, following = due_times(cron, first, now)
    assert first <= latest <= now < following
    assert following == next_due(cron, now)
    assert next_due(cron, latest) == following, "none is between the latest and the next"
    assert next(CronSim(cron, latest - timedelta(seconds=1))) == latest


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_no_runs_are_never_healthy(success: int, failure: int, timeout: int, skipped: int) -> None:
    counts = StatusCounts(success=success, failure=failure, timeout=timeout, skipped=skipped)
    found = health_status(counts)
    assert (found.status == "unknown") == (success + failure + timeout == 0)
    assert (found.status == "healthy") == (success > 0 and failure + timeout == 0)
    assert found.total == found.passed + found.failed
