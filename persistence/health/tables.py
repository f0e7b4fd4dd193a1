"""The tables of ``health``."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Numeric, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import EntityRow, VersionedRow, lets_go, one_of, table
from contracts.health import (
    checks,
    daily_summaries,
    model_calls,
    schedules,
    test_definitions,
    test_runs,
)

SCHEMA = {"schema": "health"}


def _json() -> Any:
    return mapped_column(JSONB(none_as_null=True))


def _measure() -> Any:
    return mapped_column(Double)


def _due(table: str) -> Index:
    return Index(
        f"ix_{table}__next_due_at",
        "next_due_at",
        postgresql_where=text("next_due_at IS NOT NULL"),
    )


class TestDefinition(EntityRow, entity=test_definitions.TestDefinition, deleted_in_steps=True):
    __tablename__ = "test_definitions"
    __table_args__ = (
        one_of("category", test_definitions.Category),
        one_of("method", test_definitions.Method),
        Index("ix_test_definitions__created_at_id", "created_at", "id"),
        _due("test_definitions"),
        SCHEMA,
    )

    description: Mapped[str]
    category: Mapped[str] = mapped_column(server_default="endpoint")
    endpoint: Mapped[str | None]
    method: Mapped[str | None]
    payload: Mapped[Any | None] = _json()
    expected_status: Mapped[int] = mapped_column(server_default="200")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    schedule: Mapped[str | None]
    timeout_seconds: Mapped[int] = mapped_column(server_default="300")
    retry_attempts: Mapped[int] = mapped_column(server_default="3")
    config: Mapped[Any | None] = _json()
    next_due_at: Mapped[datetime | None]


class TestRun(EntityRow, entity=test_runs.TestRun, ends_with=test_definitions.TestDefinition):
    __tablename__ = "test_runs"
    __table_args__ = (
        one_of("status", test_runs.RunStatus),
        one_of("triggered_by", test_runs.TriggeredBy),
        UniqueConstraint("session_id", "ordinal"),
        Index(
            "ix_test_runs__test_definition_id_started_at", "test_definition_id", "started_at", "id"
        ),
        Index("ix_test_runs__started_at_id", "started_at", "id", postgresql_include=["status"]),
        Index(
            "ix_test_runs__timeout_at", "timeout_at", postgresql_where=text("status = 'running'")
        ),
        SCHEMA,
    )

    test_definition_id: Mapped[str] = mapped_column(
        ForeignKey("health.test_definitions.id", ondelete="CASCADE")
    )
    session_id: Mapped[UUID | None]
    ordinal: Mapped[int | None]
    status: Mapped[str] = mapped_column(server_default="running")
    triggered_by: Mapped[str] = mapped_column(server_default="manual")
    environment: Mapped[str] = mapped_column(server_default="production")
    expected_status: Mapped[int] = mapped_column(server_default="200")
    result: Mapped[Any | None] = _json()
    error_message: Mapped[str | None]
    duration_ms: Mapped[int | None]
    metrics: Mapped[Any | None] = _json()
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    timeout_at: Mapped[datetime]


class RunTally(VersionedRow):
    """How many runs of an hour have a status: the sum of all rows, which triggers append."""

    __tablename__ = "run_tallies"
    __table_args__ = (
        one_of("status", test_runs.RunStatus),
        Index("ix_run_tallies__hour_status", "hour", "status", postgresql_include=["runs"]),
        SCHEMA,
    )

    hour: Mapped[datetime]
    status: Mapped[str]
    runs: Mapped[int]


class Check(EntityRow, entity=checks.Check):
    __tablename__ = "checks"
    __table_args__ = (
        one_of("trigger_type", checks.TriggerType),
        one_of("status", checks.CheckStatus),
        Index("ix_checks__created_at_id", "created_at", "id"),
        Index("ix_checks__timeout_at", "timeout_at", postgresql_where=text("status = 'running'")),
        SCHEMA,
    )

    trigger_type: Mapped[str]
    trigger_source: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="running")
    include_unit: Mapped[bool] = mapped_column(server_default=text("true"))
    include_integration: Mapped[bool] = mapped_column(server_default=text("true"))
    include_performance: Mapped[bool] = mapped_column(server_default=text("true"))
    workers_total: Mapped[int]
    workers_completed: Mapped[int] = mapped_column(server_default="0")
    workers_passed: Mapped[int] = mapped_column(server_default="0")
    workers_failed: Mapped[int] = mapped_column(server_default="0")
    overall_score: Mapped[float | None] = _measure()
    analysis: Mapped[str | None]
    recommendations: Mapped[str | None]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    timeout_at: Mapped[datetime]


class WorkerCheck(EntityRow, entity=checks.WorkerCheck, ends_with=checks.Check):
    __tablename__ = "worker_checks"
    __table_args__ = (
        one_of("status", checks.WorkerCheckStatus),
        one_of("overall_status", checks.OverallStatus),
        UniqueConstraint("check_id", "worker_name"),
        Index("ix_worker_checks__worker_name_requested_at", "worker_name", "requested_at", "id"),
        SCHEMA,
    )

    check_id: Mapped[UUID] = mapped_column(ForeignKey("health.checks.id", ondelete="CASCADE"))
    worker_name: Mapped[str]
    worker_type: Mapped[str]
    worker_url: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="pending")
    overall_status: Mapped[str | None]
    score: Mapped[float | None] = _measure()
    uptime_s: Mapped[float | None] = _measure()
    memory_mb: Mapped[float | None] = _measure()
    cpu_percent: Mapped[float | None] = _measure()
    response_ms: Mapped[float | None] = _measure()
    connectivity: Mapped[Any | None] = _json()
    tests: Mapped[Any | None] = _json()
    error_message: Mapped[str | None]
    warnings: Mapped[Any | None] = _json()
    raw: Mapped[Any | None] = _json()
    requested_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class Schedule(EntityRow, entity=schedules.Schedule):
    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("name"),
        Index("ix_schedules__created_at_id", "created_at", "id"),
        _due("schedules"),
        SCHEMA,
    )

    name: Mapped[str]
    cron: Mapped[str]
    time_zone: Mapped[str] = mapped_column(server_default="UTC")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    timeout_minutes: Mapped[int] = mapped_column(server_default="30")
    include_unit: Mapped[bool] = mapped_column(server_default=text("true"))
    include_integration: Mapped[bool] = mapped_column(server_default=text("true"))
    include_performance: Mapped[bool] = mapped_column(server_default=text("true"))
    worker_filters: Mapped[Any | None] = _json()
    next_due_at: Mapped[datetime | None]
    last_due_at: Mapped[datetime | None]


class ModelCall(EntityRow, entity=model_calls.ModelCall):
    __tablename__ = "model_calls"
    __table_args__ = (
        Index("ix_model_calls__test_run_id_created_at", "test_run_id", "created_at", "id"),
        Index("ix_model_calls__created_at_id", "created_at", "id"),
        SCHEMA,
    )

    test_run_id: Mapped[UUID | None] = mapped_column(lets_go("health.test_runs"))
    model: Mapped[str]
    provider: Mapped[str]
    prompt: Mapped[str | None]
    response: Mapped[str | None]
    tokens: Mapped[int | None]
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric)
    latency_ms: Mapped[int | None]
    success: Mapped[bool]
    error_message: Mapped[str | None]
    metadata_: Mapped[Any | None] = mapped_column("metadata", JSONB(none_as_null=True))


class ModelTally(VersionedRow):
    """The use of a model on a day, successes only: the sum of all rows, which triggers append."""

    __tablename__ = "model_tallies"
    __table_args__ = (
        Index("ix_model_tallies__day_provider_model", "day", "provider", "model"),
        SCHEMA,
    )

    day: Mapped[date]
    provider: Mapped[str]
    model: Mapped[str]
    calls: Mapped[int]
    tokens: Mapped[int] = mapped_column(BigInteger)
    cost_usd: Mapped[Decimal] = mapped_column(Numeric)
    timed_calls: Mapped[int]
    latency_ms: Mapped[int] = mapped_column(BigInteger)


class DailySummary(EntityRow, entity=daily_summaries.DailySummary):
    __tablename__ = "daily_summaries"
    __table_args__ = (
        one_of("overall_status", daily_summaries.DayStatus),
        UniqueConstraint("day"),
        SCHEMA,
    )

    day: Mapped[date]
    overall_status: Mapped[str]
    total: Mapped[int]
    passed: Mapped[int]
    failed: Mapped[int]
    skipped: Mapped[int]
    mean_latency_ms: Mapped[float | None] = _measure()
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric)
    model_calls: Mapped[int]
    issues: Mapped[Any | None] = _json()
    recommendations: Mapped[Any | None] = _json()


test_definition = table(TestDefinition)
test_run = table(TestRun)
check = table(Check)
worker_check = table(WorkerCheck)
schedule = table(Schedule)
model_call = table(ModelCall)
model_tally = table(ModelTally)
daily_summary = table(DailySummary)
