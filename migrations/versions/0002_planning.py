"""Projects, initiatives, phases and tasks."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _versioned() -> list[sa.Column[Any]]:
    """What every table of a context has."""
    now = sa.text("now()")
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
    ]


def upgrade() -> None:
    op.execute("CREATE SCHEMA planning")
    op.create_table(
        "initiatives",
        *_versioned(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("status_before", sa.Text(), nullable=True),
        sa.Column("branch", sa.Text(), nullable=True),
        sa.Column("execution_mode", sa.Text(), server_default="review_per_phase", nullable=False),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.UniqueConstraint("external_ref", name=op.f("uq_initiatives__external_ref")),
        sa.CheckConstraint(
            "execution_mode IN ('yolo', 'review_per_phase')",
            name=op.f("ck_initiatives__execution_mode"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'pending_review', 'completed', 'archived')",
            name=op.f("ck_initiatives__status"),
        ),
        sa.CheckConstraint(
            "status_before IN ('active', 'pending_review', 'completed')",
            name=op.f("ck_initiatives__status_before"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_initiatives")),
        schema="planning",
    )
    op.create_index(
        "ix_initiatives__created_at_id",
        "initiatives",
        ["created_at", "id"],
        schema="planning",
    )
    op.create_index("ix_initiatives__name_id", "initiatives", ["name", "id"], schema="planning")
    op.create_table(
        "projects",
        *_versioned(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("default_branch", sa.Text(), server_default="main", nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("last_fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects__name")),
        sa.UniqueConstraint("url", name=op.f("uq_projects__url")),
        schema="planning",
    )
    op.create_index(
        "ix_projects__created_at_id",
        "projects",
        ["created_at", "id"],
        schema="planning",
    )
    op.create_table(
        "initiative_projects",
        *_versioned(),
        sa.Column("initiative_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["initiative_id"],
            ["planning.initiatives.id"],
            name=op.f("fk_initiative_projects__initiative_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["planning.projects.id"],
            name=op.f("fk_initiative_projects__project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_initiative_projects")),
        sa.UniqueConstraint(
            "initiative_id",
            "project_id",
            name=op.f("uq_initiative_projects__initiative_id_project_id"),
        ),
        schema="planning",
    )
    op.create_index(
        op.f("ix_initiative_projects__project_id"),
        "initiative_projects",
        ["project_id"],
        schema="planning",
    )
    op.create_table(
        "phases",
        *_versioned(),
        sa.Column("initiative_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "content", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("status_before", sa.Text(), nullable=True),
        sa.Column("blocked_reason", sa.Text(), nullable=True),
        sa.Column("merge_base", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.UniqueConstraint(
            "initiative_id", "external_ref", name=op.f("uq_phases__initiative_id_external_ref")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'in_progress', 'pending_review', 'completed', 'blocked')",
            name=op.f("ck_phases__status"),
        ),
        sa.CheckConstraint(
            "status_before IN ('pending', 'approved', 'in_progress', 'pending_review')",
            name=op.f("ck_phases__status_before"),
        ),
        sa.ForeignKeyConstraint(
            ["initiative_id"],
            ["planning.initiatives.id"],
            name=op.f("fk_phases__initiative_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_phases")),
        schema="planning",
    )
    op.create_index("ix_phases__created_at_id", "phases", ["created_at", "id"], schema="planning")
    op.create_index("ix_phases__name_id", "phases", ["name", "id"], schema="planning")
    op.create_index("ix_phases__position_id", "phases", ["position", "id"], schema="planning")
    op.create_index(
        "ix_phases__initiative_id_position",
        "phases",
        ["initiative_id", "position", "id"],
        schema="planning",
    )
    op.create_table(
        "phase_dependencies",
        *_versioned(),
        sa.Column("phase_id", sa.Uuid(), nullable=False),
        sa.Column("depends_on_phase_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "phase_id <> depends_on_phase_id", name=op.f("ck_phase_dependencies__not_self")
        ),
        sa.ForeignKeyConstraint(
            ["depends_on_phase_id"],
            ["planning.phases.id"],
            name=op.f("fk_phase_dependencies__depends_on_phase_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["phase_id"],
            ["planning.phases.id"],
            name=op.f("fk_phase_dependencies__phase_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_phase_dependencies")),
        sa.UniqueConstraint(
            "phase_id",
            "depends_on_phase_id",
            name=op.f("uq_phase_dependencies__phase_id_depends_on_phase_id"),
        ),
        schema="planning",
    )
    op.create_index(
        op.f("ix_phase_dependencies__depends_on_phase_id"),
        "phase_dependencies",
        ["depends_on_phase_id"],
        schema="planning",
    )
    op.create_table(
        "tasks",
        *_versioned(),
        sa.Column("initiative_id", sa.Uuid(), nullable=True),
        sa.Column("phase_id", sa.Uuid(), nullable=True),
        sa.Column("parent_task_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), server_default="auto", nullable=False),
        sa.Column("category", sa.Text(), server_default="execute", nullable=False),
        sa.Column("priority", sa.Text(), server_default="medium", nullable=False),
        sa.Column(
            "priority_rank",
            sa.SmallInteger(),
            sa.Computed(
                "CASE priority WHEN 'high' THEN 0 WHEN 'medium' THEN 1 ELSE 2 END", persisted=True
            ),
            nullable=False,
        ),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column(
            "result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("retry_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("blocked_reason", sa.Text(), nullable=True),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "late_results",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "category IN ('execute', 'research', 'discuss', 'plan', 'detail', 'refine', 'verify', 'merge', 'review')",
            name=op.f("ck_tasks__category"),
        ),
        sa.CheckConstraint(
            "priority IN ('low', 'medium', 'high')", name=op.f("ck_tasks__priority")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'completed', 'blocked')",
            name=op.f("ck_tasks__status"),
        ),
        sa.ForeignKeyConstraint(
            ["initiative_id"],
            ["planning.initiatives.id"],
            name=op.f("fk_tasks__initiative_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["parent_task_id"],
            ["planning.tasks.id"],
            name=op.f("fk_tasks__parent_task_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["phase_id"],
            ["planning.phases.id"],
            name=op.f("fk_tasks__phase_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint(
            "initiative_id", "external_ref", name=op.f("uq_tasks__initiative_id_external_ref")
        ),
        schema="planning",
    )
    op.create_index(
        "ix_tasks__claimable",
        "tasks",
        ["priority_rank", "position", "created_at", "id"],
        schema="planning",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_tasks__claimed_by",
        "tasks",
        ["claimed_by"],
        schema="planning",
        postgresql_where=sa.text("claimed_by IS NOT NULL"),
    )
    op.create_index("ix_tasks__created_at_id", "tasks", ["created_at", "id"], schema="planning")
    op.create_index(
        "ix_tasks__initiative_id_status",
        "tasks",
        ["initiative_id", "status"],
        schema="planning",
    )
    op.create_index(
        "ix_tasks__lease_expires_at",
        "tasks",
        ["lease_expires_at"],
        schema="planning",
        postgresql_where=sa.text("status = 'in_progress'"),
    )
    op.create_index(
        op.f("ix_tasks__parent_task_id"),
        "tasks",
        ["parent_task_id"],
        schema="planning",
    )
    op.create_index(
        "ix_tasks__phase_id_status",
        "tasks",
        ["phase_id", "status"],
        schema="planning",
    )
    op.create_index("ix_tasks__position_id", "tasks", ["position", "id"], schema="planning")
    op.create_table(
        "task_dependencies",
        *_versioned(),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("depends_on_task_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "task_id <> depends_on_task_id", name=op.f("ck_task_dependencies__not_self")
        ),
        sa.ForeignKeyConstraint(
            ["depends_on_task_id"],
            ["planning.tasks.id"],
            name=op.f("fk_task_dependencies__depends_on_task_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["planning.tasks.id"],
            name=op.f("fk_task_dependencies__task_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_dependencies")),
        sa.UniqueConstraint(
            "task_id",
            "depends_on_task_id",
            name=op.f("uq_task_dependencies__task_id_depends_on_task_id"),
        ),
        schema="planning",
    )
    op.create_index(
        op.f("ix_task_dependencies__depends_on_task_id"),
        "task_dependencies",
        ["depends_on_task_id"],
        schema="planning",
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_task_dependencies__depends_on_task_id"),
        table_name="task_dependencies",
        schema="planning",
    )
    op.drop_table("task_dependencies", schema="planning")
    op.drop_index("ix_tasks__position_id", table_name="tasks", schema="planning")
    op.drop_index("ix_tasks__phase_id_status", table_name="tasks", schema="planning")
    op.drop_index(op.f("ix_tasks__parent_task_id"), table_name="tasks", schema="planning")
    op.drop_index(
        "ix_tasks__lease_expires_at",
        table_name="tasks",
        schema="planning",
        postgresql_where=sa.text("status = 'in_progress'"),
    )
    op.drop_index("ix_tasks__initiative_id_status", table_name="tasks", schema="planning")
    op.drop_index("ix_tasks__created_at_id", table_name="tasks", schema="planning")
    op.drop_index(
        "ix_tasks__claimed_by",
        table_name="tasks",
        schema="planning",
        postgresql_where=sa.text("claimed_by IS NOT NULL"),
    )
    op.drop_index(
        "ix_tasks__claimable",
        table_name="tasks",
        schema="planning",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("tasks", schema="planning")
    op.drop_index(
        op.f("ix_phase_dependencies__depends_on_phase_id"),
        table_name="phase_dependencies",
        schema="planning",
    )
    op.drop_table("phase_dependencies", schema="planning")
    op.drop_index("ix_phases__initiative_id_position", table_name="phases", schema="planning")
    op.drop_index("ix_phases__position_id", table_name="phases", schema="planning")
    op.drop_index("ix_phases__name_id", table_name="phases", schema="planning")
    op.drop_index("ix_phases__created_at_id", table_name="phases", schema="planning")
    op.drop_table("phases", schema="planning")
    op.drop_index(
        op.f("ix_initiative_projects__project_id"),
        table_name="initiative_projects",
        schema="planning",
    )
    op.drop_table("initiative_projects", schema="planning")
    op.drop_index("ix_projects__created_at_id", table_name="projects", schema="planning")
    op.drop_table("projects", schema="planning")
    op.drop_index("ix_initiatives__name_id", table_name="initiatives", schema="planning")
    op.drop_index("ix_initiatives__created_at_id", table_name="initiatives", schema="planning")
    op.drop_table("initiatives", schema="planning")
    op.execute("DROP SCHEMA planning")
