"""Field types that the nouns of planning share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bus.contract import Id

PhaseId = Id
PhaseStatus = Literal[
    "pending", "approved", "in_progress", "pending_review", "completed", "blocked"
]
ProjectId = Id

Incarnation = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""The number of an agent's process: 1, and +1 each time the agent comes back after its end."""


def _distinct(ids: list[Id]) -> list[Id]:
    if len(set(ids)) != len(ids):
        raise ValueError("must not name anything twice")
    return ids


Ids = Annotated[
    list[Id],
    Field(max_length=500, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
]
"""Up to 500 ids, each once."""
