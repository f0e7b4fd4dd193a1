"""The time zone whose local times a schedule means; it was UTC for all."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "schedules",
        sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False),
        schema="health",
    )


def downgrade() -> None:
    op.drop_column("schedules", "time_zone", schema="health")
