"""Draft the next migration: what the declared tables have and the migrations do not make yet.

``make migration NAME=what_it_does`` migrates an embedded PostgreSQL and lets Alembic compare.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bus.storage.database import driver_url
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate
from migrations.release import VERSIONS

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


async def draft(url: str, name: str, directory: Path | None = None) -> Path:
    """Write the difference between a migrated database and the tables; returns the file."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not words in lower case with underscores between them")
    engine = create_async_engine(driver_url(url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_draft, name, directory)
    finally:
        await engine.dispose()


def config(connection: Connection, directory: Path | None = None) -> Config:
    """Alembic's configuration for drafts; they may lie in a directory of their own."""
    settings = migrate.config(connection)
    settings.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    settings.set_main_option("truncate_slug_length", "80")
    if directory is not None:
        settings.set_main_option("path_separator", "newline")
        settings.set_main_option("version_locations", f"{VERSIONS}\n{directory}")
    return settings


def _draft(connection: Connection, name: str, directory: Path | None) -> Path:
    script = command.revision(
        config(connection, directory),
        name.replace("_", " ").capitalize(),
        autogenerate=True,
        rev_id=f"{int(migrate.head()) + 1:04}",
        version_path=None if directory is None else str(directory),
    )
    assert isinstance(script, Script)
    path = Path(script.path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.lstrip().startswith("# ###")))
    return path


async def _draft_on(data: Path, name: str) -> None:
    postgres = EmbeddedPostgres(data, durable=False)
    await postgres.start()
    try:
        await migrate.upgrade(postgres.url)
        await draft(postgres.url, name)
    finally:
        await postgres.stop("immediate")


def main(name: str) -> None:
    """Draft on a server that is there for that alone."""
    with tempfile.TemporaryDirectory(prefix="fleetbus-migration-") as data:
        Path(data).chmod(0o711)  # PostgreSQL, when root starts it, runs as another user
        asyncio.run(_draft_on(Path(data), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
