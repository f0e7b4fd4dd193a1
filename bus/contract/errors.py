"""Errors that belong to no single noun.

Those in ``EVERYWHERE`` may be the answer of any operation and are not declared; the others are
declared by the operations that raise them.
"""

from pydantic import BaseModel

from bus.contract.fields import Id
from bus.contract.refusals import (
    BadRequest,
    Conflict,
    Down,
    Forbidden,
    Internal,
    NotFound,
    TimedOut,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unprocessable,
)


class FieldError(BaseModel):
    """What is wrong with one field: its path (``items.3.name``; empty for the body) and why."""

    field: str
    message: str


class InvalidRequest(BadRequest):
    """The request is not valid JSON, or a field is missing, unknown or invalid."""

    errors: list[FieldError]

    @property
    def detail(self) -> str:
        """The first thing that is wrong, and how many more there are."""
        first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        return f"{first.field[:200] or 'body'}: {first.message[:300]}{more}"


class DryRunRefused(BadRequest):
    """The operation judges a guess, or reveals a secret: it is never a dry run."""


class CallerUnknown(Unauthenticated):
    """The caller could not be identified."""


class NotAllowed(Forbidden):
    """The caller may not do this."""


class InvalidTransition(Conflict, detail="{entity} {id} is {from}, not {expected}"):
    """The entity is not in a state that allows this."""

    entity: str
    id: Id
    from_: str
    to: str
    expected: str


class VersionConflict(
    Conflict, detail="{entity} {id} is at version {current_version}, not {expected_version}"
):
    """The entity has changed since it was read."""

    entity: str
    id: Id
    expected_version: int
    current_version: int


class AlreadyExists(Conflict, detail="there is already a {entity} with this {fields}"):
    """Another entity already has a value that must be unique."""

    entity: str
    fields: str


class IdempotencyKeyReused(Conflict, detail="the key {key} was used for another request"):
    """The idempotency key belongs to a request with another subject or body."""

    key: str


class ReplyTooLarge(TooLarge, detail="{bytes} bytes do not fit into {limit}; {advice}"):
    """The reply would not fit into one message."""

    bytes: int
    limit: int
    advice: str


class TooExpensive(Unprocessable, detail="not found within {seconds} s; {advice}"):
    """The query reads more than is allowed at once; apart from that, nothing is wrong with it."""

    seconds: float
    advice: str = "narrow it with filters other than search, or leave out the count"


class EntityTooLarge(
    TooLarge, detail="the {entity} would be {bytes} bytes of JSON, over {limit}; shorten its texts"
):
    """The entity would not fit into one message together with its event."""

    entity: str
    bytes: int
    limit: int


class InvalidReference(Unprocessable, detail="{field} names a {entity} that does not exist"):
    """The request names another entity that does not exist."""

    field: str
    entity: str


class ConstraintViolated(Unprocessable, detail="the rule {constraint} refuses these values"):
    """The values break a rule that the database enforces."""

    constraint: str


class Overloaded(TooMany, detail="{in_flight} requests in progress ({budget}); try again later"):
    """The service has as much work as it accepts; nothing was done.

    ``budget`` names the limit that was reached: ``commands``, ``queries``, ``vital``,
    ``operation``, ``bytes``; this caller's share of it, ``caller`` and ``caller_bytes``; or
    ``expensive``, for queries that read a lot.
    """

    in_flight: int
    retry_after_ms: int
    budget: str = "requests"


class InternalError(Internal, detail="an internal error; it is in the log as {error_id}"):
    """A bug in the service; nothing was stored."""

    error_id: str


class CredentialsNotSet(NotFound, detail="{entity} {id} has no credentials"):
    """The account has no credentials."""

    entity: str = "account"
    id: Id


class CredentialsUnreadable(Down, detail="{reason}", retryable=False):
    """Credentials cannot be encrypted or decrypted with the keys that the service has."""

    reason: str
    """Which key is missing or does not fit; never a value."""


class Unavailable(Down, detail="{what}"):
    """The database cannot be reached, is in recovery, read-only, full, or cancelled the work."""

    what: str = "the database cannot be reached"


class DeadlineExceeded(TimedOut, detail="the deadline passed {when}; nothing was stored"):
    """The caller's deadline passed; nothing was stored."""

    when: str = "before the work began"


EVERYWHERE = (
    InvalidRequest,
    CallerUnknown,
    NotAllowed,
    IdempotencyKeyReused,
    ReplyTooLarge,
    TooExpensive,
    EntityTooLarge,
    Overloaded,
    InternalError,
    Unavailable,
    DeadlineExceeded,
)
