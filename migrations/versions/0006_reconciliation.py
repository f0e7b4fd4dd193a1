"""What the reconciler found, timelines that a person accepted, and indexes of the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

LOG_INDEXES = ("entity_id", "type", "recorded_at")
"""Each with the position, so that a page of the log is read in its order."""


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "reconciliation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("checked", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("missing", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("repaired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("mark", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state IN ('ok', 'repaired', 'incomplete', 'timeline_conflict')",
            name=op.f("ck_reconciliation__state"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_reconciliation")),
        schema="bus",
    )
    op.create_table(
        "timelines",
        sa.Column("stream_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stream_sequence", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("stream_created_at", "stream_sequence", name=op.f("pk_timelines")),
        schema="bus",
    )
    for column in LOG_INDEXES:
        op.create_index(
            f"ix_outbox__{column}_position", "outbox", [column, "position"], schema="bus"
        )


def downgrade() -> None:
    for column in reversed(LOG_INDEXES):
        op.drop_index(f"ix_outbox__{column}_position", "outbox", schema="bus")
    op.drop_table("timelines", schema="bus")
    op.drop_table("reconciliation", schema="bus")
