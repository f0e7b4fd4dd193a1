"""The replies as pydantic models, for the peers with an ORM."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


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


class NewLogChunk(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
