"""The database schema: bring it up to date, and know whether it fits this code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from bus.storage.database import driver_url

MIGRATION_LOCK = 0x666C_6565_7401
"""The advisory lock that one migration at a time holds ("fleet", 1)."""


class SchemaMismatch(Exception):
    """The database schema does not fit this version of fleetbus."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations that ship with the package."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(migrations.__file__).parent))
    settings.attributes["connection"] = connection
    return settings


@cache
def head() -> str:
    """The revision that this code needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None
    return revision


@cache
def older() -> frozenset[str]:
    """The revisions that this code knows and that it cannot work with."""
    known = ScriptDirectory.from_config(config()).walk_revisions()
    return frozenset(script.revision for script in known) - {head()}


async def upgrade(url: str, revision: str = "head") -> str:
    """Upgrade to a revision, one process at a time; returns the revision reached."""
    return await _run(url, command.upgrade, revision)


async def downgrade(url: str, revision: str) -> str:
    """Downgrade to a revision (``base`` removes everything)."""
    return await _run(url, command.downgrade, revision)


async def current(engine: AsyncEngine) -> str | None:
    """The revision of a database, None where nothing has been migrated yet."""
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


async def check(engine: AsyncEngine) -> None:
    """Refuse a schema that is older or newer than this code."""
    found, wanted = await current(engine), head()
    _refuse_newer(found)
    if found != wanted:
        raise SchemaMismatch(
            f"the database schema is at {found or 'nothing'}, this version needs {wanted}: "
            "run `fleetbus migrate`"
        )


async def _run(url: str, action: Any, revision: str) -> str:
    engine = create_async_engine(driver_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS bus"))
            _refuse_newer(await connection.run_sync(_revision))
            await connection.run_sync(lambda sync: action(config(sync), revision))
        return await current(engine) or "base"
    finally:
        await engine.dispose()


def _refuse_newer(found: str | None) -> None:
    """Refuse a schema that only a newer version can have migrated."""
    if found is not None and found not in older() and found != head():
        raise SchemaMismatch(
            f"the database schema is at {found}, which this version (up to {head()}) does not "
            "know: run the newer fleetbus that migrated it"
        )


def _revision(connection: Connection) -> str | None:
    options = {"version_table": "schema_version", "version_table_schema": "bus"}
    return MigrationContext.configure(connection, opts=options).get_current_revision()
