"""What happens to test runs."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference
from bus.handling import Decision, Emit, carry_out, decider, handler, query, values_of
from bus.kit.id_series import following_id
from bus.storage import load
from contracts.health.test_definitions import TestDefinition
from contracts.health.test_runs import (
    FinishTestRun,
    GetLatestTestRuns,
    RecordedRun,
    RecordedRuns,
    RecordManyTestRuns,
    RecordTestRun,
    StartTestRun,
    TestRun,
    TestRunFinished,
    TestRuns,
    TestRunStarted,
)
from handlers.health._test_run_rules import duration_ms, recorded_run, refuse_contradiction
from handlers.health.states import TEST_RUN
from persistence.health import test_runs


@decider
def start_test_run(
    command: StartTestRun, test_definition: TestDefinition, *, new_id: UUID, now: datetime
) -> Decision[TestRun]:
    started = TestRun.first(
        id=new_id,
        now=now,
        **values_of(command, "id"),
        status="running",
        expected_status=test_definition.expected_status,
        result=None,
        error_message=None,
        duration_ms=None,
        metrics=None,
        started_at=now,
        completed_at=None,
        timeout_at=now + timedelta(seconds=test_definition.timeout_seconds),
    )

    return Decision(started, TestRunStarted(test_run=started))


@decider
def finish_test_run(
    command: FinishTestRun, test_run: TestRun, *, now: datetime
) -> Decision[TestRun]:
    TEST_RUN.require(test_run, "finish")
    refuse_contradiction(command, test_run.test_definition_id, test_run.expected_status)

    took = command.duration_ms
    finished = test_run.evolve(
        now,
        status=command.status,
        result=command.result,
        error_message=command.error_message,
        duration_ms=duration_ms(test_run.started_at, now) if took is None else took,
        metrics=command.metrics,
        completed_at=now,
    )

    return Decision(finished, TestRunFinished(test_run=finished))


@decider
def record_test_run(
    command: RecordTestRun, test_definition: TestDefinition, *, new_id: UUID, now: datetime
) -> Decision[TestRun]:
    run = recorded_run(command, test_definition, id_=new_id, session_id=command.session_id, now=now)

    return Decision(run, TestRunFinished(test_run=run))


@handler
async def record_many_test_runs(
    command: RecordManyTestRuns, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> RecordedRuns:
    named = {item.test_definition_id for item in command.items}
    definitions = await load(db, TestDefinition, named)
    runs = []
    for number, item in enumerate(command.items):
        if (definition := definitions.get(item.test_definition_id)) is None:
            field = f"items.{number}.test_definition_id"
            raise InvalidReference(field=field, entity="test_definition")
        id_ = item.id or following_id(new_id, number)
        runs.append(recorded_run(item, definition, id_=id_, session_id=command.session_id, now=now))

    decisions = [Decision(run, TestRunFinished(test_run=run)) for run in runs]
    await carry_out(decisions, db=db, emit=emit, new=True)

    return RecordedRuns(
        items=[
            RecordedRun(id=run.id, test_definition_id=item.test_definition_id, status=item.status)
            for run, item in zip(runs, command.items, strict=True)
        ]
    )


@query
async def get_latest_test_runs(query: GetLatestTestRuns, *, db: AsyncConnection) -> TestRuns:
    return TestRuns(items=await test_runs.latest(db, query.limit))
