"""Which revision of the database schema this code needs, known without the tool that migrates."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import migrations

_REVISION = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_DOWN_REVISION = re.compile(r'^down_revision = "(\w+)"$', re.MULTILINE)

_MIGRATED = text("SELECT to_regclass('bus.schema_version') IS NOT NULL")
_CURRENT = text("SELECT version_num FROM bus.schema_version")


class SchemaMismatch(Exception):
    """The database schema does not fit this version of fleetbus."""


@cache
def head() -> str:
    """The revision that this code needs."""
    [revision] = _known(_REVISION) - _known(_DOWN_REVISION)
    return revision


@cache
def older() -> frozenset[str]:
    """The revisions that this code knows and that it cannot work with."""
    return _known(_REVISION) - {head()}


async def current(engine: AsyncEngine) -> str | None:
    """The revision of a database, None where nothing has been migrated yet."""
    async with engine.connect() as connection:
        if not await connection.scalar(_MIGRATED):
            return None
        revision: str | None = await connection.scalar(_CURRENT)
        return revision


async def check(engine: AsyncEngine) -> None:
    """Refuse a schema that is older or newer than this code."""
    revision, wanted = await current(engine), head()
    refuse_newer(revision)
    if revision != wanted:
        raise SchemaMismatch(
            f"the database schema is at {revision or 'nothing'}, this version needs {wanted}: "
            "run `fleetbus migrate`"
        )


def refuse_newer(revision: str | None) -> None:
    """Refuse a schema that only a newer version can have migrated."""
    if revision is not None and revision not in older() and revision != head():
        raise SchemaMismatch(
            f"the database schema is at {revision}, which this version (up to {head()}) does not "
            "know: run the newer fleetbus that migrated it"
        )


def _known(line: re.Pattern[str]) -> frozenset[str]:
    """What this line names in each of the migrations that ship with the package."""
    versions = Path(migrations.__file__).parent / "versions"
    found = (line.search(file.read_text()) for file in versions.glob("*.py"))
    return frozenset(match[1] for match in found if match)
