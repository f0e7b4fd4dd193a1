"""The database schema: bring it up to date. Whether it fits is in ``schema``, without Alembic."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from bus.storage.database import driver_url
from fleetbus.server.schema import SchemaMismatch, current, head, refuse_newer

__all__ = [
    "SchemaMismatch",
    "config",
    "current",
    "downgrade",
    "found",
    "head",
    "steps",
    "upgrade",
    "upgrade_directory",
]

log = logging.getLogger("fleetbus.migrate")

MIGRATION_LOCK = 0x666C_6565_7401
"""The advisory lock that one migration at a time holds ("fleet", 1)."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations that ship with the package."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(migrations.__file__).parent))
    settings.attributes["connection"] = connection
    return settings


def steps(revision: str) -> int:
    """How many migrations lie between an older revision and the one that this code needs."""
    scripts = ScriptDirectory.from_config(config()).iterate_revisions(head(), revision)
    return len(list(scripts))


async def found(url: str) -> str | None:
    """The revision of a database that may be upgraded, None where nothing has been migrated yet."""
    engine = create_async_engine(driver_url(url), poolclass=NullPool)
    try:
        revision = await current(engine)
    finally:
        await engine.dispose()
    refuse_newer(revision)
    return revision


async def upgrade(url: str, revision: str = "head") -> str:
    """Upgrade to a revision, one process at a time; returns the revision reached."""
    return await _run(url, command.upgrade, revision)


async def upgrade_directory(url: str, data_dir: Path) -> None:
    """Upgrade the database of a data directory, and say what it was."""
    try:
        before, needed = await found(url), head()
    except SchemaMismatch as mismatch:
        raise SchemaMismatch(f"{data_dir} has data of a newer version: {mismatch}") from None
    if before is None:
        log.info("the data in %s is new, at migration %s", data_dir, needed)
    elif before == needed:
        log.info("the data in %s is at migration %s, as this version needs it", data_dir, needed)
    else:
        what = "upgrading the data in %s from migration %s to %s: %d migrations"
        log.info(what, data_dir, before, needed, steps(before))
    await upgrade(url)


async def downgrade(url: str, revision: str) -> str:
    """Downgrade to a revision (``base`` removes everything)."""
    return await _run(url, command.downgrade, revision)


async def _run(url: str, action: Any, revision: str) -> str:
    engine = create_async_engine(driver_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS bus"))
            refuse_newer(await connection.run_sync(_revision))
            await connection.run_sync(lambda sync: action(config(sync), revision))
        return await current(engine) or "base"
    finally:
        await engine.dispose()


def _revision(connection: Connection) -> str | None:
    options = {"version_table": "schema_version", "version_table_schema": "bus"}
    return MigrationContext.configure(connection, opts=options).get_current_revision()
