"""Accounts: the provider subscriptions that agents run on, and which one is used next."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from bus.contract import (
    ABSENT,
    AlreadyExists,
    Command,
    Conflict,
    CredentialsNotSet,
    CredentialsUnreadable,
    Down,
    Entity,
    Event,
    GetOf,
    JsonObject,
    ListOf,
    Name,
    NotFound,
    Position,
    Query,
    Reply,
    Sensitive,
    Text,
    Time,
    Version,
    VersionConflict,
)
from contracts.agents._agent import AgentUpdated
from contracts.agents._fields import AccountId, Provider

EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"

Email = Annotated[
    Text, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\s@]+@[^\s@]+$")
]
"""An address with one ``@`` and no spaces, up to 320 characters."""


class AccountNotFound(NotFound, detail="account {id} does not exist"):
    """There is no such account."""

    id: AccountId


class NoAccountAvailable(Conflict, detail="no account of {provider} is available"):
    """Every account of the provider is exhausted, or there is none."""

    provider: str
    earliest: Time | None = None
    """When the first of them is available again, if that is known."""


class Account(Entity, not_found=AccountNotFound):
    """A subscription with a provider, used by agents in turn. Its credentials are stored apart."""

    email: Email
    provider: Provider
    config: JsonObject | None
    """How it is to be used, for those who start agents; nothing secret belongs here."""
    has_credentials: bool
    is_exhausted: bool
    exhausted_until: Time | None
    """When its provider will serve it again; it counts as available from then on."""
    last_used_at: Time | None
    """When it was last acquired."""
    sort_order: Position


class AccountCreated(Event, type="account.created"):
    """An account was created; agents can run on it."""

    account: Account


class AccountUpdated(Event, type="account.updated"):
    """Fields of an account were changed."""

    account: Account


class AccountExhausted(Event, type="account.exhausted"):
    """The provider does not serve an account for the time being."""

    account: Account


class AccountAvailable(Event, type="account.available"):
    """An account that was exhausted can be used again."""

    account: Account


class AccountCredentialsChanged(Event, type="account.credentials_changed"):
    """The credentials of an account were replaced or removed; the event does not contain them."""

    account: Account


class AccountDeleted(Event, type="account.deleted"):
    """An account was deleted; agents that ran on it no longer have one."""

    account: Account
    """The account as it last was, with its version one higher."""


class AccountDeletion(Reply):
    """What was deleted."""

    id: AccountId


class Credentials(Reply):
    """The credentials of an account, as they were set."""

    id: AccountId
    credentials: Sensitive[JsonObject]


class CreateAccount(
    Command[Account],
    subject="db.accounts.create",
    errors=(AlreadyExists,),
    emits=(AccountCreated,),
    example={"email": "fleet@example.com", "provider": "claude", "sort_order": 1},
):
    """Create an account; an email address can be used once per provider."""

    id: AccountId | None = None
    email: Email
    provider: Provider = "claude"
    config: JsonObject | None = None
    sort_order: Position = 0


class GetAccount(GetOf[Account], subject="db.accounts.get"):
    """Get one account by its id."""

    id: AccountId


class ListAccounts(ListOf[Account], subject="db.accounts.list", example={"exhausted": False}):
    """List the accounts that match every filter given, a page at a time."""

    provider: Provider | None = None
    exhausted: bool | None = None
    """Exhausted now: an account whose ``exhausted_until`` has passed is not."""
    order: Literal["sort_order", "-sort_order", "created_at", "-created_at"] = "sort_order"


class UpdateAccount(
    Command[Account],
    subject="db.accounts.update",
    errors=(AccountNotFound, VersionConflict, AlreadyExists),
    emits=(AccountUpdated,),
    example={"id": EXAMPLE_ID, "sort_order": 2},
):
    """Update an account; fields that are left out stay."""

    id: AccountId
    email: Email = ABSENT
    config: JsonObject | None = None
    sort_order: Position = ABSENT
    expected_version: Version | None = None


class DeleteAccount(
    Command[AccountDeletion],
    subject="db.accounts.delete",
    errors=(AccountNotFound,),
    emits=(AccountDeleted, AgentUpdated),
):
    """Delete an account and its credentials; agents that run on it continue without one."""

    id: AccountId


class AcquireAccount(
    Command[Account],
    subject="db.accounts.acquire",
    errors=(NoAccountAvailable,),
    emits=(AccountAvailable, AccountUpdated),
    example={"provider": "claude"},
):
    """Acquire the account that has rested longest: never used ones first, then by ``sort_order``.

    If the time of an exhaustion has passed, it ends here at once. Callers that come at the same
    time get different accounts in turn.
    """

    provider: Provider = "claude"


class MarkAccountExhausted(
    Command[Account],
    subject="db.accounts.mark_exhausted",
    errors=(AccountNotFound,),
    emits=(AccountExhausted,),
    example={"id": EXAMPLE_ID, "until": "2031-01-01T12:00:00Z"},
):
    """Mark an account that its provider does not serve as exhausted, until a time or until cleared.

    A report never shortens an earlier one: an earlier time changes nothing, and no time at all
    counts as the latest. ``accounts.clear_exhausted`` ends the exhaustion.

    Agents that run on the account are switched to another one; if there is none,
    ``agent.account_needed`` is emitted.
    """

    id: AccountId
    until: Time | None = None


class ClearAccountExhausted(
    Command[Account],
    subject="db.accounts.clear_exhausted",
    errors=(AccountNotFound,),
    emits=(AccountAvailable,),
):
    """Clear the exhaustion of an account, if it is exhausted; it can be used again."""

    id: AccountId


class SetAccountCredentials(
    Command[Account],
    subject="db.accounts.set_credentials",
    errors=(AccountNotFound, CredentialsUnreadable),
    emits=(AccountCredentialsChanged,),
    example={"id": EXAMPLE_ID, "credentials": {"token": "…"}},
    secret=True,
):
    """Set the credentials of an account, stored encrypted; null removes them."""

    id: AccountId
    credentials: Sensitive[JsonObject | None]


class RevealAccountCredentials(
    Command[Credentials],
    subject="db.accounts.reveal_credentials",
    errors=(AccountNotFound, CredentialsNotSet, CredentialsUnreadable),
    secret=True,
    reveals=True,
):
    """Reveal the credentials of an account in plain text; no other operation returns them.

    It is a command, because it is put on record.
    """

    id: AccountId
