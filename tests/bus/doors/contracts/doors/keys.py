"""Keys of doors: who has one proves it by a token."""

from datetime import datetime
from typing import Annotated

from bus.contract import (
    Command,
    CredentialsUnreadable,
    Entity,
    Id,
    InvalidReference,
    JsonObject,
    NotFound,
    Query,
    Reply,
    Text,
    Time,
    Token,
    TokenOf,
)

KeyToken = Annotated[Token, TokenOf("dkey")]


class KeyNotFound(NotFound, detail="key {id} does not exist"):
    """There is no key with this id."""

    id: Id


class Tag(Reply):
    """What hangs on a key."""

    text: Text


class Key(Entity, not_found=KeyNotFound):
    """A key, perhaps of a door."""

    door_id: Id | None
    tags: list[Tag]
    more: JsonObject | None


class NewKey(Reply):
    """A key, and the token that is shown this once."""

    key: Key
    token: KeyToken


class KeyState(Reply):
    """What is known of a key."""

    valid: bool
    key: Key | None
    holder: Text | None
    door: Text | None
    colour: Text | None
    beside: list[Text]
    """What was handed to the query beside the key."""
    at: Time


class CutKey(
    Command[NewKey],
    subject="db.keys.cut",
    errors=(InvalidReference, CredentialsUnreadable),
    secret=True,
):
    """Cut a key of a door; without a holder nothing lies beside it."""

    door_id: Id | None = None
    holder: Text | None = "me"


class CheckKey(Query[KeyState], subject="db.keys.check", secret=True):
    """Check a token, whoever has it."""

    token: KeyToken


class ShowKey(Query[KeyState], subject="db.keys.show", errors=(KeyNotFound,)):
    """Show a key by its id."""

    id: Id


def state_at(
    now: datetime, key: Key | None, *beside: object | None, **values: str | None
) -> KeyState:
    """What is known of a key, or of none."""
    known = dict.fromkeys(("holder", "door", "colour")) | values
    names = [type(one).__name__ for one in beside if one is not None]
    return KeyState(valid=key is not None, key=key, at=now, beside=names, **known)
