"""Alembic's entry point; the connection comes from ``fleetbus.server.migrate``."""

from alembic import context
from sqlalchemy import Connection

from bus.running.discovery import is_partition, metadata

METADATA = metadata("persistence")
SCHEMAS = {table.schema for table in METADATA.tables.values()}


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    if kind == "table" and is_partition(name):
        return False
    return kind != "schema" or name in SCHEMAS


def run(connection: Connection) -> None:
    """Run the migrations that the command asked for, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        include_schemas=True,
        include_name=_ours,
        version_table="schema_version",
        version_table_schema="bus",
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
