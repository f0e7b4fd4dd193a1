"""What is said of a request that is not valid: where and why, never the value that was sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError

from bus.contract.errors import FieldError, InvalidRequest
from bus.contract.fields import FieldValueError

MAX_FIELD_ERRORS: Final = 20
"""A request that is wrong in more places is told the first of them."""

MAX_FIELD_PATH: Final = 300

WITHHELD: Final = "is not valid"
"""Said of a secret where more words could quote it."""

_TELL_NOTHING: Final = frozenset(
    {
        *("missing", "string_type", "dict_type", "list_type", "int_type", "bool_type"),
        *("string_too_short", "string_too_long", "too_short", "too_long"),
    }
)
"""Kinds of errors whose messages say what is wanted, and nothing of what was sent."""


def invalid_request(error: ValidationError, secrets: Collection[str] = ()) -> InvalidRequest:
    """Each wrong field with its path and why; of ``secrets``, names of fields, not even keys."""
    return InvalidRequest(errors=wrong_fields(error, secrets))


def wrong_fields(
    error: ValidationError, secrets: Collection[str] = (), within: tuple[str | int, ...] = ()
) -> list[FieldError]:
    """The same as a list; ``within`` is where the request that is wrong stands in another."""
    items = error.errors(include_url=False, include_input=False)
    return [_told(item, secrets, within) for item in items[:MAX_FIELD_ERRORS]]


def wrong_header(name: str, message: str) -> InvalidRequest:
    """A header that cannot be used."""
    return InvalidRequest(errors=[FieldError(field=name, message=message)])


def _told(
    item: Mapping[str, Any], secrets: Collection[str], within: tuple[str | int, ...]
) -> FieldError:
    path, message = item["loc"], item["msg"]
    secret = next((at for at, part in enumerate(path) if part in secrets), None)
    if secret is not None:
        path = path[: secret + 1]
        ours = isinstance(item.get("ctx", {}).get("error"), FieldValueError)
        message = message if ours or item["type"] in _TELL_NOTHING else WITHHELD
    field = ".".join(str(part) for part in (*within, *path))[:MAX_FIELD_PATH]
    return FieldError(field=field, message=message)
