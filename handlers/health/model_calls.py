"""What happens to calls to models."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.handling import Decision, decider, query, values_of
from contracts.health.model_calls import (
    GetModelUsage,
    ListModelCalls,
    ModelCall,
    ModelUsages,
    RecordModelCall,
)
from contracts.health.test_runs import TestRun
from persistence.health import model_calls


@decider
def record_model_call(
    command: RecordModelCall,
    test_run: TestRun | None,  # noqa: ARG001  it is only looked at to refuse one that is not there
    *,
    new_id: UUID,
    now: datetime,
) -> Decision[ModelCall]:
    return Decision(ModelCall.first(id=new_id, now=now, **values_of(command, "id")))


@query
async def list_model_calls(query: ListModelCalls, *, db: AsyncConnection) -> Page[ModelCall]:
    return await model_calls.page(db, query)


@query
async def get_model_usage(
    query: GetModelUsage, *, db: AsyncConnection, now: datetime
) -> ModelUsages:
    first = now.date() - timedelta(days=query.days - 1)
    return ModelUsages(items=await model_calls.usage(db, first))
