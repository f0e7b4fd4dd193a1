"""The outbox in partitions, ranges of positions. What it holds stays where it lies."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


class Xid8(sa.types.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


WIDTH = 10_000_000_000
AHEAD = 3


def upgrade() -> None:
    current = _last_position() // WIDTH
    _set_aside(f"outbox_p{current}")
    op.create_table(
        "outbox",
        *_columns(),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_outbox")),
        schema="bus",
        postgresql_partition_by="RANGE (position)",
    )
    op.create_index("ix_outbox__event_id", "outbox", ["event_id"], schema="bus")
    op.execute(_attach(f"outbox_p{current}", 0, (current + 1) * WIDTH))
    for number in range(current + 1, current + 1 + AHEAD):
        _create_partition(f"outbox_p{number}")
        op.execute(_attach(f"outbox_p{number}", number * WIDTH, (number + 1) * WIDTH))
    _create_partition("outbox_default")
    op.execute("ALTER TABLE bus.outbox ATTACH PARTITION bus.outbox_default DEFAULT")


def downgrade() -> None:
    op.create_table("outbox_whole", *_columns(), schema="bus")
    op.execute("INSERT INTO bus.outbox_whole SELECT * FROM bus.outbox ORDER BY position")
    op.drop_table("outbox", schema="bus")
    op.rename_table("outbox_whole", "outbox", schema="bus")
    op.create_primary_key(op.f("pk_outbox"), "outbox", ["position"], schema="bus")
    op.create_unique_constraint(op.f("uq_outbox__event_id"), "outbox", ["event_id"], schema="bus")


def _set_aside(name: str) -> None:
    """Rename the outbox as it was; it becomes the first partition, and no row is copied."""
    op.drop_constraint("uq_outbox__event_id", "outbox", schema="bus")
    op.rename_table("outbox", name, schema="bus")
    op.execute(f"ALTER TABLE bus.{name} RENAME CONSTRAINT pk_outbox TO pk_{name}")


def _create_partition(name: str) -> None:
    op.execute(
        f"CREATE TABLE bus.{name} (LIKE bus.outbox INCLUDING DEFAULTS, "
        f"CONSTRAINT pk_{name} PRIMARY KEY (position))"
    )


def _attach(name: str, first: int, end: int) -> str:
    return (
        f"ALTER TABLE bus.outbox ATTACH PARTITION bus.{name} FOR VALUES FROM ({first}) TO ({end})"
    )


def _last_position() -> int:
    return int(op.get_bind().scalar(sa.text("SELECT last_value FROM bus.outbox_position")))


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column(
            "position",
            sa.BigInteger(),
            server_default=sa.text("nextval('bus.outbox_position')"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
    ]
