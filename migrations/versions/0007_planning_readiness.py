"""What makes a task ready is kept with it, and indexed: a claim walks what it can take."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

READY = "status = 'pending' AND NOT held AND underway"
ORDER = ["priority_rank", "position", "created_at", "id"]

# Waits: it depends on what is not completed. Held: it, or something above it, waits, or something
# above it is blocked.
FILL = """
    WITH RECURSIVE waiting AS (
        SELECT DISTINCT d.task_id
        FROM planning.task_dependencies d
        JOIN planning.tasks o ON o.id = d.depends_on_task_id
        WHERE o.status <> 'completed'
    ), reached AS (
        SELECT t.id, t.status, t.initiative_id, w.task_id IS NOT NULL AS held,
               t.phase_id AS in_phase_id
        FROM planning.tasks t LEFT JOIN waiting w ON w.task_id = t.id
        WHERE t.parent_task_id IS NULL
        UNION ALL
        SELECT t.id, t.status, t.initiative_id,
               r.held OR r.status = 'blocked' OR w.task_id IS NOT NULL,
               COALESCE(t.phase_id, r.in_phase_id)
        FROM reached r
        JOIN planning.tasks t ON t.parent_task_id = r.id
        LEFT JOIN waiting w ON w.task_id = t.id
    ), truth AS (
        SELECT r.id, r.held, r.in_phase_id,
               (f.id IS NULL OR f.status = 'in_progress')
               AND (i.id IS NULL OR i.status = 'active') AS underway
        FROM reached r
        LEFT JOIN planning.phases f ON f.id = r.in_phase_id
        LEFT JOIN planning.initiatives i ON i.id = r.initiative_id
    )
    UPDATE planning.tasks t
    SET held = truth.held, in_phase_id = truth.in_phase_id, underway = truth.underway
    FROM truth
    WHERE t.id = truth.id AND (t.held, t.in_phase_id, t.underway)
        IS DISTINCT FROM (truth.held, truth.in_phase_id, truth.underway)
"""


def upgrade() -> None:
    op.add_column(
        "tasks",
        sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="planning",
    )
    op.add_column("tasks", sa.Column("in_phase_id", sa.Uuid(), nullable=True), schema="planning")
    op.add_column(
        "tasks",
        sa.Column("underway", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        schema="planning",
    )
    for table in ("initiatives", "phases", "task_dependencies"):
        op.execute(f"LOCK TABLE planning.{table} IN SHARE MODE")
    op.execute(FILL)
    _index("ix_tasks__ready", ["category", *ORDER], READY)
    for name, column in (("initiative", "initiative_id"), ("phase", "in_phase_id")):
        _index(
            f"ix_tasks__ready_in_{name}",
            [column, "category", *ORDER],
            f"{READY} AND {column} IS NOT NULL",
        )
    op.create_index(
        "ix_tasks__in_phase_id_status", "tasks", ["in_phase_id", "status"], schema="planning"
    )
    op.drop_index("ix_tasks__claimable", table_name="tasks", schema="planning")


def downgrade() -> None:
    _index("ix_tasks__claimable", ORDER, "status = 'pending'")
    for name in ("in_phase_id_status", "ready_in_phase", "ready_in_initiative", "ready"):
        op.drop_index(f"ix_tasks__{name}", table_name="tasks", schema="planning")
    for column in ("underway", "in_phase_id", "held"):
        op.drop_column("tasks", column, schema="planning")


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "tasks", columns, schema="planning", postgresql_where=sa.text(where))
