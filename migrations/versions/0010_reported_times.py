"""Times that clocks ahead of the database's reported count as the times of their arrival."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        UPDATE health.test_runs SET
            completed_at = created_at,
            started_at = greatest(
                created_at - coalesce(duration_ms, 0) * interval '1 millisecond',
                '0001-01-01 00:00:00+00'
            )
        WHERE version = 1 AND completed_at > created_at
    """)
    op.execute("""
        UPDATE planning.projects SET last_fetched_at = updated_at
        WHERE last_fetched_at > updated_at
    """)


def downgrade() -> None:
    pass
