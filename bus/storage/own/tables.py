"""The tables of the bus itself.

Outbox, audit, idempotency rows, the relay's state, what the reconciler found and removed, when
requests were answered last, the sweeper's log.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSON, JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from bus.storage.partitions import PARTITIONED, Daily, Partitioned
from bus.storage.tables import Row, one_of


class Xid8(UserDefinedType[str]):
    """A 64-bit transaction id (``xid8``)."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


ischema_names["xid8"] = Xid8  # so that the comparison of schema and metadata can read it

outbox_position = Sequence("outbox_position", schema="bus", metadata=Row.metadata)

outbox = Table(
    "outbox",
    Row.metadata,
    # First on purpose: defaults are evaluated in column order, and a transaction must have its
    # xid before it takes its first position, or the relay could give up a hole that is still owned.
    Column("xid", Xid8, server_default=text("pg_current_xact_id()"), nullable=False),
    Column(
        "position",
        BigInteger,
        primary_key=True,
        server_default=text("nextval('bus.outbox_position')"),
        autoincrement=False,
    ),
    Column("event_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("entity_id", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("cause", Text),
    Column("traceparent", Text),
    Column(
        "recorded_at",
        DateTime(timezone=True),
        server_default=text("clock_timestamp()"),
        nullable=False,
    ),
    Index("ix_outbox__entity_id_position", "entity_id", "position"),
    Index("ix_outbox__type_position", "type", "position"),
    Index("ix_outbox__recorded_at_position", "recorded_at", "position"),
    # Not unique: a unique index of a partitioned table must contain the position.
    Index("ix_outbox__event_id", "event_id"),
    schema="bus",
    postgresql_partition_by="RANGE (position)",
)

audit = Table(
    "audit",
    Row.metadata,
    Column(
        "at",
        DateTime(timezone=True),
        primary_key=True,
        server_default=text("clock_timestamp()"),
    ),
    Column("id", Uuid, primary_key=True),
    # Who did it, as far as that is known; null for whoever calls from outside.
    Column("actor", Text),
    Column("kind", Text, nullable=False),
    Column("entity", Text),
    Column("entity_id", Text),
    Column("ip", INET),
    Column("detail", JSONB, server_default=text("'{}'"), nullable=False),
    Index("ix_audit__actor_at_id", "actor", "at", "id"),
    Index("ix_audit__kind_at_id", "kind", "at", "id"),
    Index("ix_audit__entity_entity_id_at_id", "entity", "entity_id", "at", "id"),
    schema="bus",
    postgresql_partition_by="RANGE (at)",
)

PARTITIONED["audit"] = Partitioned(
    "bus", "audit", Daily(job="keep_audit", retention="audit_retention_days", column="at")
)

requests = Table(
    "requests",
    Row.metadata,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("reply", Text, nullable=False),
    Column("position", BigInteger),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Index("ix_requests__created_at", "created_at"),
    schema="bus",
)

relay_state = Table(
    "relay_state",
    Row.metadata,
    Column("name", Text, primary_key=True),
    Column("cursor", BigInteger, server_default="0", nullable=False),
    Column("holes", JSONB, server_default=text("'[]'"), nullable=False),
    Column("stream_sequence", BigInteger, server_default="0", nullable=False),
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    schema="bus",
)

reconciliation = Table(
    "reconciliation",
    Row.metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("checked_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("checked", BigInteger, server_default="0", nullable=False),
    Column("missing", BigInteger, server_default="0", nullable=False),
    Column("repaired", BigInteger, server_default="0", nullable=False),
    Column("detail", Text, server_default="", nullable=False),
    # Up to where the stream was last found whole, and what it looked like then.
    Column("mark", JSONB),
    one_of("state", Literal["ok", "repaired", "incomplete", "timeline_conflict"]),
    schema="bus",
)

foreign_messages = Table(
    "foreign_messages",
    Row.metadata,
    Column("name", Text, primary_key=True),
    Column("removed", BigInteger, server_default="0", nullable=False),
    Column("last_removed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("last_subject", Text, server_default="", nullable=False),
    Column("last_sequence", BigInteger, server_default="0", nullable=False),
    schema="bus",
)

timelines = Table(
    "timelines",
    Row.metadata,
    Column("stream_created_at", DateTime(timezone=True), primary_key=True),
    Column("stream_sequence", BigInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("accepted_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    schema="bus",
)

pulse = Table(
    "pulse",
    Row.metadata,
    Column("name", Text, primary_key=True),
    # The last moment at which requests were answered for certain.
    Column("served_at", DateTime(timezone=True), nullable=False),
    # The last outage: until when requests were answered before it, and since when they are again.
    Column("interrupted_at", DateTime(timezone=True)),
    Column("restored_at", DateTime(timezone=True)),
    schema="bus",
)

sweeps = Table(
    "sweeps",
    Row.metadata,
    Column("job", Text, primary_key=True),
    Column("last_run_at", DateTime(timezone=True)),
    Column("last_duration_ms", Integer),
    Column("last_error", Text),
    Column("handled", BigInteger, server_default="0", nullable=False),
    schema="bus",
)
