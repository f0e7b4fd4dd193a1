"""What agents and model calls refer to is asked for when a transaction ends, and let go of."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("task_id", "initiative_id", "account_id")


def upgrade() -> None:
    for column in COLUMNS:
        _check(column, "DEFERRED")
    _refer("DEFERRABLE INITIALLY DEFERRED")


def downgrade() -> None:
    for column in COLUMNS:
        _check(column, "IMMEDIATE")
    _refer("ON DELETE SET NULL")


def _check(column: str, when: str) -> None:
    op.execute(
        f"ALTER TABLE agents.agents ALTER CONSTRAINT fk_agents__{column}"
        f" DEFERRABLE INITIALLY {when}"
    )


def _refer(how: str) -> None:
    op.execute(f"""
        ALTER TABLE health.model_calls
            DROP CONSTRAINT fk_model_calls__test_run_id,
            ADD CONSTRAINT fk_model_calls__test_run_id
                FOREIGN KEY (test_run_id) REFERENCES health.test_runs (id) {how}
    """)
