"""What happens to calls to models."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, decider, query, values_of
from contracts.health.model_calls import (
    GetModelUsage,
    ModelCall,
    ModelUsages,
    RecordModelCall,
)
from persistence.health import model_calls


@decider
def record_model_call(
    command: RecordModelCall, *, new_id: UUID, now: datetime
) -> Decision[ModelCall]:
    return Decision(ModelCall.first(id=new_id, now=now, **values_of(command, "id")))


@query
async def get_model_usage(
    query: GetModelUsage, *, db: AsyncConnection, now: datetime
) -> ModelUsages:
    first = now.date() - timedelta(days=query.days - 1)
    return ModelUsages(items=await model_calls.usage(db, first))
