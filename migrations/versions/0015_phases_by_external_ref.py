"""Phases are listed by their external reference alone, too, by an index."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_phases__external_ref", "phases", ["external_ref"], unique=False, schema="planning"
    )


def downgrade() -> None:
    op.drop_index("ix_phases__external_ref", table_name="phases", schema="planning")
