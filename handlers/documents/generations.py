"""What happens to generations."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.handling import Decision, decider, query
from contracts.documents.generations import (
    Generation,
    GenerationBrief,
    GenerationRecorded,
    GetGeneration,
    ListGenerations,
    RecordGeneration,
)
from persistence.documents import generations


@decider
def record_generation(
    command: RecordGeneration, *, new_id: UUID, now: datetime
) -> Decision[Generation]:
    generation = Generation.first(
        id=new_id,
        now=now,
        repo_url=command.repo_url,
        pr_url=command.pr_url,
        is_dry_run=command.is_dry_run,
        content=command.content,
        sources=command.sources,
    )
    brief = generation.model_dump(include=set(GenerationBrief.model_fields))
    told = GenerationBrief(**brief, characters=len(generation.content))

    return Decision(generation, GenerationRecorded(generation=told))


@query
def get_generation(query: GetGeneration, generation: Generation) -> Generation:  # noqa: ARG001  the id has been used to find it
    return generation


@query
async def list_generations(query: ListGenerations, *, db: AsyncConnection) -> Page[Generation]:
    return await generations.page(db, query)
