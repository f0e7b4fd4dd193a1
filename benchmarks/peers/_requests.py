"""The requests and the task as pydantic models, for the peers that validate."""

from datetime import datetime
from typing import Annotated, Any, Literal
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


class Get(Request):
    id: UUID


class List(Request):
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class Task(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    version: int
    created_at: datetime
    updated_at: datetime
    initiative_id: UUID | None
    phase_id: UUID | None
    parent_task_id: UUID | None
    name: str
    description: str | None
    type: str
    category: str
    priority: str
    status: str
    position: int
    summary: str | None
    result: Any
    retry_count: int
    blocked_reason: str | None
    external_ref: str | None
    claimed_by: str | None
    attempt: int
    lease_expires_at: datetime | None


class Tasks(BaseModel):
    items: list[Task]


class ClaimedTask(BaseModel):
    task: Task


class ClaimedTasks(BaseModel):
    tasks: list[ClaimedTask]
