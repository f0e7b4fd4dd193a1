"""Several commands in one request: the parts of the request and of its reply."""

from typing import Any

from pydantic import Field

from bus.contract.fields import Name
from bus.contract.model import Reply, Request
from bus.contract.refusals import BadRequest


class GivenCommand(Request):
    """One of several commands, as it would be sent alone."""

    subject: Name
    """The command's subject, ``db.<noun>.<verb>``."""
    body: dict[str, Any] = Field(default_factory=dict)
    """Its request. Name what an earlier command creates by an ``id`` of your own."""


class Replies(Reply):
    """The replies of several commands."""

    replies: list[dict[str, Any]]
    """The reply of each command in their order, as it would be alone."""


class NotTransactional(BadRequest, detail="{why}"):
    """One of the commands cannot stand in a transaction with others.

    ``operation`` and ``subject`` say which.
    """

    why: str
