"""What no event tells is put on record, in partitions by day."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEXES = [
    "ix_audit__actor_at_id ON bus.audit (actor, at, id)",
    "ix_audit__kind_at_id ON bus.audit (kind, at, id)",
    "ix_audit__entity_entity_id_at_id ON bus.audit (entity, entity_id, at, id)",
]


def upgrade() -> None:
    op.execute("""
        CREATE TABLE bus.audit (
            at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
            id UUID NOT NULL,
            actor TEXT,
            kind TEXT NOT NULL,
            entity TEXT,
            entity_id TEXT,
            ip INET,
            detail JSONB DEFAULT '{}' NOT NULL,
            CONSTRAINT pk_audit PRIMARY KEY (at, id)
        ) PARTITION BY RANGE (at)
    """)
    op.execute("CREATE TABLE bus.audit_default PARTITION OF bus.audit DEFAULT")
    for index in INDEXES:
        op.execute(f"CREATE INDEX {index}")


def downgrade() -> None:
    op.execute("DROP TABLE bus.audit")
