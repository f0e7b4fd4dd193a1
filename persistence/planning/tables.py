"""The tables of ``planning``."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    SmallInteger,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import DERIVED, EntityRow, VersionedRow, one_of, table
from contracts.planning import initiatives, phases, projects, tasks

SCHEMA = {"schema": "planning"}


def _belongs_to(target: str, *, index: bool = True) -> Any:
    return mapped_column(ForeignKey(f"planning.{target}.id", ondelete="CASCADE"), index=index)


READY = "status = 'pending' AND NOT held AND underway"
"""Whether a task is ready, by its own columns."""


def _of_ready(name: str, *within: str) -> Index:
    """An index of the tasks that are ready, those of a category in the order of claims."""
    there = "".join(f" AND {column} IS NOT NULL" for column in within)
    order = ("category", "priority_rank", "position", "created_at", "id")
    return Index(name, *within, *order, postgresql_where=text(READY + there))


class Project(EntityRow, entity=projects.Project):
    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("name"),
        UniqueConstraint("url"),
        Index("ix_projects__created_at_id", "created_at", "id"),
        SCHEMA,
    )

    name: Mapped[str]
    url: Mapped[str]
    default_branch: Mapped[str] = mapped_column(server_default="main")
    description: Mapped[str | None]
    last_fetched_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]


class Initiative(EntityRow, entity=initiatives.Initiative, deleted_in_steps=True):
    __tablename__ = "initiatives"
    __table_args__ = (
        one_of("status", initiatives.InitiativeStatus),
        one_of("status_before", initiatives.InitiativeStatus, besides=["archived"]),
        one_of("execution_mode", initiatives.ExecutionMode),
        UniqueConstraint("external_ref"),
        Index("ix_initiatives__created_at_id", "created_at", "id"),
        Index("ix_initiatives__name_id", "name", "id"),
        SCHEMA,
    )

    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="active")
    status_before: Mapped[str | None]
    branch: Mapped[str | None]
    execution_mode: Mapped[str] = mapped_column(server_default="review_per_phase")
    external_ref: Mapped[str | None]


class InitiativeProject(VersionedRow, ends_with=(initiatives.Initiative, projects.Project)):
    __tablename__ = "initiative_projects"
    __table_args__ = (UniqueConstraint("initiative_id", "project_id"), SCHEMA)

    initiative_id: Mapped[UUID] = _belongs_to("initiatives", index=False)
    project_id: Mapped[UUID] = _belongs_to("projects")


class Phase(EntityRow, entity=phases.Phase, ends_with=initiatives.Initiative):
    __tablename__ = "phases"
    __table_args__ = (
        one_of("status", phases.PhaseStatus),
        one_of("status_before", phases.PhaseStatus, besides=["completed", "blocked"]),
        UniqueConstraint("initiative_id", "external_ref"),
        Index("ix_phases__external_ref", "external_ref"),
        Index("ix_phases__initiative_id_position", "initiative_id", "position", "id"),
        Index("ix_phases__created_at_id", "created_at", "id"),
        Index("ix_phases__name_id", "name", "id"),
        Index("ix_phases__position_id", "position", "id"),
        SCHEMA,
    )

    initiative_id: Mapped[UUID] = _belongs_to("initiatives", index=False)
    name: Mapped[str]
    content: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(server_default="pending")
    status_before: Mapped[str | None]
    blocked_reason: Mapped[str | None]
    merge_base: Mapped[str | None]
    position: Mapped[int]
    external_ref: Mapped[str | None]


class PhaseDependency(VersionedRow, ends_with=phases.Phase):
    __tablename__ = "phase_dependencies"
    __table_args__ = (
        UniqueConstraint("phase_id", "depends_on_phase_id"),
        CheckConstraint("phase_id <> depends_on_phase_id", name="not_self"),
        SCHEMA,
    )

    phase_id: Mapped[UUID] = _belongs_to("phases", index=False)
    depends_on_phase_id: Mapped[UUID] = _belongs_to("phases")


class Task(
    EntityRow,
    entity=tasks.Task,
    ends_with=(initiatives.Initiative, phases.Phase, tasks.Task),
):
    """What makes a task ready is kept with it, by ``_task_readiness.py``."""

    __tablename__ = "tasks"
    __table_args__ = (
        one_of("status", tasks.TaskStatus),
        one_of("priority", tasks.TaskPriority),
        one_of("category", tasks.TaskCategory),
        UniqueConstraint("initiative_id", "external_ref"),
        Index("ix_tasks__initiative_id_status", "initiative_id", "status"),
        Index("ix_tasks__phase_id_status", "phase_id", "status"),
        Index("ix_tasks__created_at_id", "created_at", "id"),
        Index("ix_tasks__position_id", "position", "id"),
        _of_ready("ix_tasks__ready"),
        _of_ready("ix_tasks__ready_in_initiative", "initiative_id"),
        _of_ready("ix_tasks__ready_in_phase", "in_phase_id"),
        Index("ix_tasks__in_phase_id_status", "in_phase_id", "status"),
        Index(
            "ix_tasks__lease_expires_at",
            "lease_expires_at",
            postgresql_where=text("status = 'in_progress'"),
        ),
        Index(
            "ix_tasks__claimed_by", "claimed_by", postgresql_where=text("claimed_by IS NOT NULL")
        ),
        SCHEMA,
    )

    initiative_id: Mapped[UUID | None] = _belongs_to("initiatives", index=False)
    phase_id: Mapped[UUID | None] = _belongs_to("phases", index=False)
    parent_task_id: Mapped[UUID | None] = _belongs_to("tasks")
    name: Mapped[str]
    description: Mapped[str | None]
    type: Mapped[str] = mapped_column(server_default="auto")
    category: Mapped[str] = mapped_column(server_default="execute")
    priority: Mapped[str] = mapped_column(server_default="medium")
    priority_rank: Mapped[int] = mapped_column(
        SmallInteger,
        Computed(
            "CASE priority WHEN 'high' THEN 0 WHEN 'medium' THEN 1 ELSE 2 END", persisted=True
        ),
    )
    status: Mapped[str] = mapped_column(server_default="pending")
    position: Mapped[int] = mapped_column(server_default="0")
    summary: Mapped[str | None]
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    retry_count: Mapped[int] = mapped_column(server_default="0")
    blocked_reason: Mapped[str | None]
    external_ref: Mapped[str | None]
    claimed_by: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(server_default="0")
    lease_expires_at: Mapped[datetime | None]
    lease_seconds: Mapped[int | None]
    late_results: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'"))
    held: Mapped[bool] = mapped_column(server_default=false(), info=DERIVED)
    in_phase_id: Mapped[UUID | None] = mapped_column(info=DERIVED)
    underway: Mapped[bool] = mapped_column(server_default=true(), info=DERIVED)


class TaskDependency(VersionedRow, ends_with=tasks.Task):
    __tablename__ = "task_dependencies"
    __table_args__ = (
        UniqueConstraint("task_id", "depends_on_task_id"),
        CheckConstraint("task_id <> depends_on_task_id", name="not_self"),
        SCHEMA,
    )

    task_id: Mapped[UUID] = _belongs_to("tasks", index=False)
    depends_on_task_id: Mapped[UUID] = _belongs_to("tasks")


project = table(Project)
initiative = table(Initiative)
initiative_project = table(InitiativeProject)
phase = table(Phase)
phase_dependency = table(PhaseDependency)
task = table(Task)
task_dependency = table(TaskDependency)
