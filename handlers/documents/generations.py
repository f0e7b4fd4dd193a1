"""What happens to generations."""

from datetime import datetime
from uuid import UUID

from bus.handling import Decision, decider
from contracts.documents.generations import (
    Generation,
    GenerationBrief,
    GenerationRecorded,
    RecordGeneration,
)


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
