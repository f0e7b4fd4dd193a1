"""Why something does not start, in one line that says what it is and what to do.

Whatever is not known here is a bug, and its traceback is wanted.
"""

from __future__ import annotations

import os
import sys

import asyncpg
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bus.storage.database import describe
from fleetbus.server.schema import SchemaMismatch


class CannotStart(Exception):
    """Something that the service needs is missing; the message says what."""


NO_DATABASE_URL = (
    "DATABASE_URL is not the URL of a Postgres database: postgresql://user@host/database"
)


def why(error: BaseException, database_url: str = "") -> str | None:
    """The reason of a known failure to start, None for a bug. ``database_url`` was to be used."""
    embedded = _loaded("fleetbus.embedded.errors", "EmbeddedError")
    if isinstance(error, (CannotStart, SchemaMismatch, *embedded)):
        return words(error)
    if isinstance(error, _loaded("alembic.util", "CommandError")):
        return f"the schema cannot be migrated: {words(error)}"
    if isinstance(error, ArgumentError):
        return NO_DATABASE_URL
    if isinstance(error, OSError) and error.filename is not None:
        # Of a path, and not of an address.
        return f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}"
    if isinstance(error, (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        at = f" at {describe(database_url)}" if database_url else ""
        return f"Postgres{at} cannot be used: {words(error)}"
    return None


def words(error: BaseException) -> str:
    """An error in one line: some say nothing but their class, some quote a statement."""
    said = str(getattr(error, "orig", None) or error).strip()
    return " ".join(said.split()) or type(error).__name__


def _loaded(module: str, error: str) -> tuple[type[Exception], ...]:
    """An error of what a handler process does not load, where somebody has loaded it."""
    found: type[Exception] | None = getattr(sys.modules.get(module), error, None)
    return () if found is None else (found,)
