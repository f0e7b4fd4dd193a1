"""The requests as pydantic models, for the peers that validate."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Title = Annotated[str, Field(min_length=1, max_length=500)]
CREATE = ("name", "description", "priority")
Text = Annotated[str, Field(max_length=20_000)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Complete(Request):
    id: UUID
    attempt: int | None = None
    summary: Text | None = None


class Create(Request):
    name: Title
    description: Text | None = None
    priority: Literal["low", "medium", "high"] = "medium"


class Claim(Request):
    agent_id: Title


class Append(Request):
    agent_id: UUID
    content: Annotated[str, Field(min_length=1, max_length=256 * 1024)]


class Get(Request):
    id: UUID


class List(Request):
    limit: Annotated[int, Field(ge=1, le=500)] = 50
