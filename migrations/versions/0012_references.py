"""What agents refer to is asked for when a transaction ends, whatever it does."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("task_id", "initiative_id", "account_id")


def upgrade() -> None:
    for column in COLUMNS:
        _check(column, "DEFERRED")


def downgrade() -> None:
    for column in COLUMNS:
        _check(column, "IMMEDIATE")


def _check(column: str, when: str) -> None:
    op.execute(
        f"ALTER TABLE agents.agents ALTER CONSTRAINT fk_agents__{column}"
        f" DEFERRABLE INITIALLY {when}"
    )
