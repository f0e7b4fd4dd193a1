"""When the service last served, how long claims hold, and references that nobody empties unseen."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REFERENCES = (
    ("task_id", "planning", "tasks"),
    ("initiative_id", "planning", "initiatives"),
    ("account_id", "agents", "accounts"),
)
"""What agents refer to, and may not lose without a version and an event."""


def upgrade() -> None:
    op.create_table(
        "pulse",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("interrupted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pulse")),
        schema="bus",
    )
    # Of a database that was served before, the sweeper's log tells until when.
    op.execute("""
        INSERT INTO bus.pulse (name, served_at)
        SELECT 'service', coalesce(max(last_run_at), clock_timestamp())
        FROM bus.sweeps WHERE job = 'expire_agent_leases'
    """)
    op.add_column("tasks", sa.Column("lease_seconds", sa.Integer()), schema="planning")
    for column, schema, table in REFERENCES:
        _refer(column, schema, table, "DEFERRABLE INITIALLY IMMEDIATE")


def downgrade() -> None:
    for column, schema, table in REFERENCES:
        _refer(column, schema, table, "ON DELETE SET NULL")
    op.drop_column("tasks", "lease_seconds", schema="planning")
    op.drop_table("pulse", schema="bus")


def _refer(column: str, schema: str, table: str, how: str) -> None:
    key = f"fk_agents__{column}"
    op.execute(f"""
        ALTER TABLE agents.agents
            DROP CONSTRAINT {key},
            ADD CONSTRAINT {key} FOREIGN KEY ({column}) REFERENCES {schema}.{table} (id) {how}
    """)
