"""What the database's errors mean to a caller."""

from __future__ import annotations

import logging

from sqlalchemy import ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import DBAPIError

from contracts._errors import Refusal
from contracts.errors import (
    AlreadyExists,
    ConstraintViolated,
    DeadlineExceeded,
    FieldError,
    InternalError,
    InvalidReference,
    InvalidRequest,
    Unavailable,
)
from fleetbus.bus.registry import Bound
from fleetbus.database import is_outage, sqlstate
from fleetbus.ids import uuid7
from persistence._all_tables import metadata

log = logging.getLogger("fleetbus.bus")

SERIALIZATION_FAILURES = {"40001", "40P01"}
"""Serialization failure and deadlock: the same transaction may succeed when it is run again."""

LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"

PROGRAM_LIMIT_EXCEEDED = "54000"
"""A value is too long for an index, which takes some 2,700 bytes."""


def is_retryable(error: BaseException) -> bool:
    """Whether running the transaction again may help."""
    return sqlstate(error) in SERIALIZATION_FAILURES


def refusal_for(error: BaseException, bound: Bound) -> Refusal:
    """The declared refusal that an exception amounts to; a bug becomes ``InternalError``."""
    refusal = error if isinstance(error, Refusal) else _translated(error)
    if refusal is not None and isinstance(refusal, bound.may_raise):
        return refusal
    error_id = str(uuid7())
    undeclared = "" if refusal is None else f" (undeclared {type(refusal).__name__})"
    log.error("internal error %s in %s%s", error_id, bound.subject, undeclared, exc_info=error)
    return InternalError(error_id=error_id)


def _translated(error: BaseException) -> Refusal | None:
    if is_outage(error):
        return Unavailable()
    state = sqlstate(error)
    if state in {QUERY_CANCELED, LOCK_NOT_AVAILABLE} or isinstance(error, TimeoutError):
        return DeadlineExceeded(when="during the work")
    if state in SERIALIZATION_FAILURES:
        return Unavailable(what="other transactions were in the way, three times")
    if state == PROGRAM_LIMIT_EXCEEDED:
        message = "a name, address or reference has too many bytes to be found by"
        return InvalidRequest(errors=[FieldError(field="", message=message)])
    if state is not None and state.startswith("23"):
        return _violated(error)
    return None


def _violated(error: BaseException) -> Refusal:
    origin = error.orig if isinstance(error, DBAPIError) else error
    cause = getattr(origin, "__cause__", None)
    name = getattr(cause, "constraint_name", None) or getattr(origin, "constraint_name", None)
    return refusal_for_constraint(str(name), metadata())


def refusal_for_constraint(name: str, tables: MetaData) -> Refusal:
    """The refusal that the violation of a named constraint amounts to."""
    for table in tables.tables.values():
        for constraint in table.constraints:
            if constraint.name != name:
                continue
            noun = _singular(table.name)
            if isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
                return AlreadyExists(entity=noun, fields=" and ".join(constraint.columns.keys()))
            if isinstance(constraint, ForeignKeyConstraint):
                target = _singular(constraint.referred_table.name)
                return InvalidReference(field=" and ".join(constraint.column_keys), entity=target)
    return ConstraintViolated(constraint=name)


def _singular(table: str) -> str:
    return table.removesuffix("ies") + "y" if table.endswith("ies") else table.removesuffix("s")
