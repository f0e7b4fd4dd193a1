"""What is deleted already and still being removed, and how nobody adds to it meanwhile."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Whoever emits an event of a part holds its root, shared, from then until the transaction ends, and
# looks, in a snapshot of its own, whether it is gone. Whoever deletes the root waits for these. A lock
# that is taken in a condition needs no statement of its own.
HOLD_ROOTS = """
    CREATE FUNCTION bus.hold_roots(roots text[]) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        root text;
        gone record;
    BEGIN
        FOREACH root IN ARRAY roots LOOP
            IF pg_advisory_xact_lock_shared(1718838380, hashtext(root)) IS NULL THEN
                RETURN false;
            END IF;
        END LOOP;
        IF NOT EXISTS (SELECT FROM bus.deletions) THEN
            RETURN true;
        END IF;
        FOR gone IN
            SELECT entity || ':' || id AS root, xid = pg_current_xact_id() AS own
            FROM bus.deletions WHERE entity || ':' || id = ANY (roots)
        LOOP
            IF NOT gone.own THEN
                RAISE EXCEPTION 'the % was deleted meanwhile', gone.root USING ERRCODE = '40001';
            END IF;
            PERFORM pg_advisory_xact_lock(1718838380, hashtext(gone.root));
        END LOOP;
        RETURN true;
    END
    $$
"""


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE bus.deletions (
            entity text NOT NULL,
            id text NOT NULL,
            xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
            deleted_at timestamptz DEFAULT now() NOT NULL,
            parts bigint NOT NULL,
            removed bigint DEFAULT 0 NOT NULL,
            CONSTRAINT pk_deletions PRIMARY KEY (entity, id)
        )
        """
    )
    op.execute(HOLD_ROOTS)


def downgrade() -> None:
    # Nothing that was deleted comes back.
    for entity, table, type_ in (
        ("initiative", "planning.initiatives", "uuid"),
        ("test_definition", "health.test_definitions", "text"),
    ):
        op.execute(
            f"DELETE FROM {table} WHERE id IN ("
            f"SELECT CAST(id AS {type_}) FROM bus.deletions WHERE entity = '{entity}')"
        )
    op.execute("DROP FUNCTION bus.hold_roots(text[])")
    op.drop_table("deletions", schema="bus")
