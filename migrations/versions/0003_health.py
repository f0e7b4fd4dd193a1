"""Health and documents: definitions, runs, checks, schedules, summaries, generations."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(none_as_null=True)

# What a statement does to runs and calls is appended to the tallies, so that callers that come
# together do not wait for one another at a counter; the sweeper merges what has been appended.
RUN_TALLIES = """
    CREATE FUNCTION health.tally_runs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO health.run_tallies (id, hour, status, runs)
            SELECT uuidv7(), date_trunc('hour', started_at, 'UTC'), status, count(*)
            FROM after_it GROUP BY 2, 3;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO health.run_tallies (id, hour, status, runs)
            SELECT uuidv7(), date_trunc('hour', started_at, 'UTC'), status, -count(*)
            FROM before_it GROUP BY 2, 3;
        ELSE
            INSERT INTO health.run_tallies (id, hour, status, runs)
            SELECT uuidv7(), hour, status, sum(n) FROM (
                SELECT date_trunc('hour', started_at, 'UTC') AS hour, status, 1 AS n FROM after_it
                UNION ALL
                SELECT date_trunc('hour', started_at, 'UTC'), status, -1 FROM before_it
            ) AS changes GROUP BY hour, status HAVING sum(n) <> 0;
        END IF;
        RETURN NULL;
    END $$
"""

MODEL_TALLIES = """
    CREATE FUNCTION health.tally_model_calls() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO health.model_tallies
                (id, day, provider, model, calls, tokens, cost_usd, timed_calls, latency_ms)
            SELECT uuidv7(), (created_at AT TIME ZONE 'UTC')::date, provider, model, count(*),
                   coalesce(sum(tokens), 0), coalesce(sum(cost_usd), 0), count(latency_ms),
                   coalesce(sum(latency_ms), 0)
            FROM after_it WHERE success GROUP BY 2, provider, model;
        END IF;
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO health.model_tallies
                (id, day, provider, model, calls, tokens, cost_usd, timed_calls, latency_ms)
            SELECT uuidv7(), (created_at AT TIME ZONE 'UTC')::date, provider, model, -count(*),
                   -coalesce(sum(tokens), 0), -coalesce(sum(cost_usd), 0), -count(latency_ms),
                   -coalesce(sum(latency_ms), 0)
            FROM before_it WHERE success GROUP BY 2, provider, model;
        END IF;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA health")
    op.execute("CREATE SCHEMA documents")
    # fmt: off
    op.create_table(
        "generations",
        *_own(),
        sa.Column("repo_url", sa.Text(), nullable=False),
        sa.Column("pr_url", sa.Text()),
        sa.Column("is_dry_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("sources", JSON, server_default=sa.text("'[]'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        schema="documents"
    )
    op.create_index("ix_generations__created_at_id", "generations", ["created_at", "id"], schema="documents")
    op.create_index("ix_generations__repo_url_created_at", "generations", ["repo_url", "created_at", "id"], schema="documents")
    op.create_table(
        "checks",
        *_own(),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("trigger_source", sa.Text()),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("include_unit", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("include_integration", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("include_performance", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("workers_total", sa.Integer(), nullable=False),
        sa.Column("workers_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("workers_passed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("workers_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("overall_score", sa.Double()),
        sa.Column("analysis", sa.Text()),
        sa.Column("recommendations", sa.Text()),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("completed_at", TIME),
        sa.Column("timeout_at", TIME, nullable=False),
        sa.CheckConstraint("status IN ('running', 'completed', 'failed', 'timeout', 'cancelled')", name=op.f("ck_checks__status")),
        sa.CheckConstraint("trigger_type IN ('cron', 'on_demand', 'package')", name=op.f("ck_checks__trigger_type")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checks")),
        schema="health"
    )
    op.create_index("ix_checks__created_at_id", "checks", ["created_at", "id"], schema="health")
    op.create_index("ix_checks__timeout_at", "checks", ["timeout_at"], schema="health", postgresql_where=sa.text("status = 'running'"))
    op.create_table(
        "daily_summaries",
        *_own(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("overall_status", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("mean_latency_ms", sa.Double()),
        sa.Column("cost_usd", sa.Numeric()),
        sa.Column("model_calls", sa.Integer(), nullable=False),
        sa.Column("issues", JSON),
        sa.Column("recommendations", JSON),
        sa.CheckConstraint("overall_status IN ('healthy', 'degraded', 'critical')", name=op.f("ck_daily_summaries__overall_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_daily_summaries")),
        sa.UniqueConstraint("day", name=op.f("uq_daily_summaries__day")),
        schema="health"
    )
    op.create_table(
        "model_tallies",
        *_own(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=False),
        sa.Column("timed_calls", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_tallies")),
        schema="health"
    )
    op.create_index("ix_model_tallies__day_provider_model", "model_tallies", ["day", "provider", "model"], schema="health")
    op.create_table(
        "run_tallies",
        *_own(),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.CheckConstraint("status IN ('running', 'success', 'failure', 'skipped', 'timeout')", name=op.f("ck_run_tallies__status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_tallies")),
        schema="health"
    )
    op.create_index("ix_run_tallies__hour_status", "run_tallies", ["hour", "status"], schema="health", postgresql_include=["runs"])
    op.create_table(
        "schedules",
        *_own(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("timeout_minutes", sa.Integer(), server_default="30", nullable=False),
        sa.Column("include_unit", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("include_integration", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("include_performance", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("worker_filters", JSON),
        sa.Column("next_due_at", TIME),
        sa.Column("last_due_at", TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules__name")),
        schema="health"
    )
    op.create_index("ix_schedules__created_at_id", "schedules", ["created_at", "id"], schema="health")
    op.create_index("ix_schedules__next_due_at", "schedules", ["next_due_at"], schema="health", postgresql_where=sa.text("next_due_at IS NOT NULL"))
    op.create_table(
        "test_definitions",
        *_own(sa.Text()),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), server_default="endpoint", nullable=False),
        sa.Column("endpoint", sa.Text()),
        sa.Column("method", sa.Text()),
        sa.Column("payload", JSON),
        sa.Column("expected_status", sa.Integer(), server_default="200", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("schedule", sa.Text()),
        sa.Column("timeout_seconds", sa.Integer(), server_default="300", nullable=False),
        sa.Column("retry_attempts", sa.Integer(), server_default="3", nullable=False),
        sa.Column("config", JSON),
        sa.Column("next_due_at", TIME),
        sa.CheckConstraint("category IN ('endpoint', 'unit', 'integration', 'performance', 'security', 'ai')", name=op.f("ck_test_definitions__category")),
        sa.CheckConstraint("method IN ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')", name=op.f("ck_test_definitions__method")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_test_definitions")),
        schema="health"
    )
    op.create_index("ix_test_definitions__created_at_id", "test_definitions", ["created_at", "id"], schema="health")
    op.create_index("ix_test_definitions__next_due_at", "test_definitions", ["next_due_at"], schema="health", postgresql_where=sa.text("next_due_at IS NOT NULL"))
    op.create_table(
        "test_runs",
        *_own(),
        sa.Column("test_definition_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("ordinal", sa.Integer()),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("triggered_by", sa.Text(), server_default="manual", nullable=False),
        sa.Column("environment", sa.Text(), server_default="production", nullable=False),
        sa.Column("expected_status", sa.Integer(), server_default="200", nullable=False),
        sa.Column("result", JSON),
        sa.Column("error_message", sa.Text()),
        sa.Column("duration_ms", sa.Integer()),
        sa.Column("metrics", JSON),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("completed_at", TIME),
        sa.Column("timeout_at", TIME, nullable=False),
        sa.CheckConstraint("status IN ('running', 'success', 'failure', 'skipped', 'timeout')", name=op.f("ck_test_runs__status")),
        sa.CheckConstraint("triggered_by IN ('cron', 'manual', 'webhook')", name=op.f("ck_test_runs__triggered_by")),
        sa.ForeignKeyConstraint(["test_definition_id"], ["health.test_definitions.id"], name=op.f("fk_test_runs__test_definition_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_test_runs")),
        sa.UniqueConstraint("session_id", "ordinal", name=op.f("uq_test_runs__session_id_ordinal")),
        schema="health"
    )
    op.create_index("ix_test_runs__started_at_id", "test_runs", ["started_at", "id"], schema="health", postgresql_include=["status"])
    op.create_index("ix_test_runs__test_definition_id_started_at", "test_runs", ["test_definition_id", "started_at", "id"], schema="health")
    op.create_index("ix_test_runs__timeout_at", "test_runs", ["timeout_at"], schema="health", postgresql_where=sa.text("status = 'running'"))
    op.create_table(
        "worker_checks",
        *_own(),
        sa.Column("check_id", sa.Uuid(), nullable=False),
        sa.Column("worker_name", sa.Text(), nullable=False),
        sa.Column("worker_type", sa.Text(), nullable=False),
        sa.Column("worker_url", sa.Text()),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("overall_status", sa.Text()),
        sa.Column("score", sa.Double()),
        sa.Column("uptime_s", sa.Double()),
        sa.Column("memory_mb", sa.Double()),
        sa.Column("cpu_percent", sa.Double()),
        sa.Column("response_ms", sa.Double()),
        sa.Column("connectivity", JSON),
        sa.Column("tests", JSON),
        sa.Column("error_message", sa.Text()),
        sa.Column("warnings", JSON),
        sa.Column("raw", JSON),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("completed_at", TIME),
        sa.CheckConstraint("overall_status IN ('healthy', 'degraded', 'unhealthy', 'critical')", name=op.f("ck_worker_checks__overall_status")),
        sa.CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'timeout', 'cancelled')", name=op.f("ck_worker_checks__status")),
        sa.ForeignKeyConstraint(["check_id"], ["health.checks.id"], name=op.f("fk_worker_checks__check_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_checks")),
        sa.UniqueConstraint("check_id", "worker_name", name=op.f("uq_worker_checks__check_id_worker_name")),
        schema="health"
    )
    op.create_index("ix_worker_checks__worker_name_requested_at", "worker_checks", ["worker_name", "requested_at", "id"], schema="health")
    op.create_table(
        "model_calls",
        *_own(),
        sa.Column("test_run_id", sa.Uuid()),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text()),
        sa.Column("response", sa.Text()),
        sa.Column("tokens", sa.Integer()),
        sa.Column("cost_usd", sa.Numeric()),
        sa.Column("latency_ms", sa.Integer()),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("error_message", sa.Text()),
        sa.Column("metadata", JSON),
        sa.ForeignKeyConstraint(["test_run_id"], ["health.test_runs.id"], name=op.f("fk_model_calls__test_run_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_calls")),
        schema="health"
    )
    op.create_index("ix_model_calls__created_at_id", "model_calls", ["created_at", "id"], schema="health")
    op.create_index("ix_model_calls__test_run_id_created_at", "model_calls", ["test_run_id", "created_at", "id"], schema="health")

    # fmt: on

    op.execute(RUN_TALLIES)
    _tallied("test_runs", "tally_runs")
    op.execute(MODEL_TALLIES)
    _tallied("model_calls", "tally_model_calls")


def downgrade() -> None:
    op.execute("DROP SCHEMA documents CASCADE")
    op.execute("DROP SCHEMA health CASCADE")


def _own(id_: sa.types.TypeEngine[Any] | None = None) -> list[sa.Column[Any]]:
    return [
        sa.Column("id", id_ or sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", TIME, server_default=sa.text("now()"), nullable=False),
    ]


def _tallied(table: str, function: str) -> None:
    seen = {
        "INSERT": "NEW TABLE AS after_it",
        "UPDATE": "OLD TABLE AS before_it NEW TABLE AS after_it",
        "DELETE": "OLD TABLE AS before_it",
    }
    for event, transition in seen.items():
        op.execute(
            f"CREATE TRIGGER {function}_{event.lower()} AFTER {event} ON health.{table} "
            f"REFERENCING {transition} FOR EACH STATEMENT EXECUTE FUNCTION health.{function}()"
        )
