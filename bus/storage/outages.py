"""What an error of the database says: of the server and its sessions, or of the statement.

Here each SQLSTATE is decided, once for commands, queries, jobs and connections. What is the
server's own (it is full, read-only, shutting down, tended by an operator) is no bug: a caller is
told 503 with what it is, and may try again.

Source: https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

READ_ONLY: Final = "25006"
QUERY_CANCELED: Final = "57014"
LOCK_NOT_AVAILABLE: Final = "55P03"

SERIALIZATION_FAILURES: Final = {"40000", "40001", "40P01", "72000"}
"""Rolled back, deadlocks among them: the same transaction may succeed when it is run again."""

NOT_REACHED: Final = "the database cannot be reached"

_ENDED: Final = {"25P03", "25P04", "40003", "53300", "57P01", "57P02", "57P03", "57P04", "57P05"}
"""Beside class 08: the session is over, or there is none to be had."""

_FORGOTTEN: Final = {"26000", "42P05", "XX000"}
"""A statement, plan or type is not what the session knows it as: somebody discarded it, or changed
what it is of."""

_WORDS: Final[Mapping[str, str]] = {
    "08": NOT_REACHED,
    READ_ONLY: "the database is read-only",
    "25P03": "the database ended a session that was idle for too long",
    "25P04": "the database ended a transaction that took too long",
    "26000": "the database has forgotten a prepared statement",
    "28": "the database does not let the service log in",
    "3D": "the database does not exist",
    "40003": "the database lost the session during the work",
    "42501": "the database denies a right that the service needs",
    "42P05": "the database has another prepared statement of the same name",
    # Tables do not get lost by a bug of a statement: somebody dropped or migrated them away.
    "3F": "the schema of the database is not the one of this version",
    "42P01": "the schema of the database is not the one of this version",
    "53": "the database has run out of resources",
    "53100": "the disk of the database is full",
    "53200": "the database is out of memory",
    "53300": "the database accepts no more connections",
    "53400": "the database has reached a limit of its configuration",
    "55000": "the database is not in a state for this",
    "55006": "somebody else is using a part of the database that is needed",
    LOCK_NOT_AVAILABLE: "somebody else holds a lock in the database",
    "57": "an operator has interrupted the database",
    QUERY_CANCELED: "somebody has cancelled the work in the database",
    "57P01": "the database is shutting down",
    "57P02": "the database has crashed and is recovering",
    "57P03": "the database is starting up or in recovery",
    "57P04": "the database was dropped",
    "57P05": "the database ended an idle session",
    "58": "the database cannot use its files",
    "F0": "the configuration of the database is wrong",
    "XX": "the database reports an error of its own",
    "XX001": "the data of the database is corrupted",
    "XX002": "an index of the database is corrupted",
}
"""By SQLSTATE or its class: what is the server's, in words. All others are the statement's."""


_LASTING: Final = {READ_ONLY, "42501", "42P01", "53100", "53200"}
_LASTING_CLASSES: Final = {"3F", "58", "F0"}
"""What every command of some kind meets until a person does something."""


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE that Postgres gave, if this error is one of its answers."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    found = getattr(origin, "sqlstate", None)
    return found if isinstance(found, str) else None


def is_outage(error: BaseException) -> bool:
    """Whether this error says that the session is over, or that Postgres cannot be reached."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return any(_ends_session(link) for link in _chain(error))


def is_stale(error: BaseException) -> bool:
    """Whether the session remembers what is no more: a plan, a statement, a state that is over.

    Another session does not, so the connection is not used again.
    """
    known = any(isinstance(link, asyncpg.InvalidCachedStatementError) for link in _chain(error))
    return known or sqlstate(error) in _FORGOTTEN


def is_passing(error: BaseException) -> bool:
    """Whether running the transaction again, at once, may help."""
    passing = SERIALIZATION_FAILURES | {QUERY_CANCELED}
    return is_outage(error) or is_stale(error) or sqlstate(error) in passing


def is_lasting(error: BaseException) -> bool:
    """Whether others will meet it as well, so that this process is of little use for now."""
    state = sqlstate(error)
    return state is not None and (state in _LASTING or state[:2] in _LASTING_CLASSES)


def trouble(error: BaseException) -> str | None:
    """What is wrong with the server, in words that may be told; None where it is not the server."""
    state = sqlstate(error)
    if state is not None:
        words = _WORDS.get(state) or _WORDS.get(state[:2])
        if words is not None:
            return words if words == NOT_REACHED else f"{words} (SQLSTATE {state})"
    if is_stale(error):
        return "the schema of the database changed during the work"
    return NOT_REACHED if is_outage(error) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error with what it was made of by SQLAlchemy."""
    yield error
    if isinstance(error, DBAPIError):
        for link in (error.orig, getattr(error.orig, "__cause__", None), error.__cause__):
            if link is not None and link is not error:
                yield link


def _ends_session(error: BaseException) -> bool:
    if isinstance(error, TimeoutError):
        return False  # an OSError, but a deadline that passed says nothing about the server
    if isinstance(error, ValueError):
        return False  # an InterfaceError too, of a value that the driver does not take
    # InternalClientError: Postgres has ended the session, and the socket is still open.
    if isinstance(
        error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, PoolTimeout)
    ):
        return True
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and (state[:2] == "08" or state in _ENDED)
