"""The tables of ``agents``."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import CompanionRow, Daily, EntityRow, SealedRow, lets_go, one_of, table
from contracts.agents import accounts, agents, log_chunks

SCHEMA = {"schema": "agents"}


class Account(EntityRow, entity=accounts.Account):
    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("provider", "email"),
        Index("ix_accounts__created_at_id", "created_at", "id"),
        Index("ix_accounts__sort_order_id", "sort_order", "id"),
        SCHEMA,
    )

    email: Mapped[str]
    provider: Mapped[str] = mapped_column(server_default="claude")
    config: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    has_credentials: Mapped[bool] = mapped_column(server_default=text("false"))
    is_exhausted: Mapped[bool] = mapped_column(server_default=text("false"))
    exhausted_until: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    sort_order: Mapped[int] = mapped_column(server_default="0")


class Credentials(SealedRow, owner=accounts.Account, named=False):
    __tablename__ = "credentials"
    __table_args__ = SCHEMA


class Agent(EntityRow, entity=agents.Agent):
    __tablename__ = "agents"
    __table_args__ = (
        one_of("status", agents.AgentStatus),
        one_of("mode", agents.AgentMode),
        UniqueConstraint("name"),
        Index("ix_agents__created_at_id", "created_at", "id"),
        Index("ix_agents__status_created_at", "status", "created_at", "id"),
        Index(
            "ix_agents__session_id", "session_id", postgresql_where=text("session_id IS NOT NULL")
        ),
        Index(
            "ix_agents__connection_name",
            "connection_name",
            postgresql_where=text("lease_expires_at IS NOT NULL"),
        ),
        Index(
            "ix_agents__lease_expires_at",
            "lease_expires_at",
            postgresql_where=text("lease_expires_at IS NOT NULL"),
        ),
        Index(
            "ix_agents__suspected_at",
            "suspected_at",
            postgresql_where=text("suspected_at IS NOT NULL"),
        ),
        SCHEMA,
    )

    name: Mapped[str]
    task_id: Mapped[UUID | None] = mapped_column(lets_go("planning.tasks"), index=True)
    initiative_id: Mapped[UUID | None] = mapped_column(lets_go("planning.initiatives"), index=True)
    session_id: Mapped[str | None]
    worktree_id: Mapped[str | None]
    provider: Mapped[str] = mapped_column(server_default="claude")
    account_id: Mapped[UUID | None] = mapped_column(lets_go("agents.accounts"), index=True)
    status: Mapped[str] = mapped_column(server_default="idle")
    mode: Mapped[str] = mapped_column(server_default="execute")
    pid: Mapped[int | None]
    host: Mapped[str | None]
    connection_name: Mapped[str | None]
    exit_code: Mapped[int | None]
    output_file_path: Mapped[str | None]
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    pending_questions: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    answers: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    dismissed_at: Mapped[datetime | None]
    incarnation: Mapped[int] = mapped_column(server_default="1")
    heartbeat_interval_s: Mapped[int] = mapped_column(server_default="10")
    last_heartbeat_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    suspected_at: Mapped[datetime | None]
    last_progress_at: Mapped[datetime | None]
    progress: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    stalled_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]


class Prompt(CompanionRow, owner=agents.Agent):
    """Apart from the agent, so that no event and no list can carry it."""

    __tablename__ = "prompts"
    __table_args__ = (SCHEMA,)

    prompt: Mapped[str]


class LogChunk(
    EntityRow,
    entity=log_chunks.LogChunk,
    daily=Daily(job="keep_logs", retention="log_retention_days"),
):
    """Partitioned by time: the retention drops whole partitions."""

    __tablename__ = "log_chunks"
    __table_args__ = (
        Index("ix_log_chunks__agent_id_created_at_id", "agent_id", "created_at", "id"),
        Index(
            "ix_log_chunks__agent_id_session_number",
            *("agent_id", "session_number", "created_at", "id"),
        ),
        {**SCHEMA, "postgresql_partition_by": "RANGE (created_at)"},
    )

    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), primary_key=True, sort_order=-2
    )
    agent_id: Mapped[UUID]
    agent_name: Mapped[str | None]
    session_number: Mapped[int] = mapped_column(server_default="1")
    content: Mapped[str]


account = table(Account)
credentials = Credentials.sealed
agent = table(Agent)
log_chunk = table(LogChunk)
