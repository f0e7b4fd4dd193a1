"""Log chunks: the output of agents, as it came. No events are emitted for them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import to_json

from bus.contract import (
    Command,
    Count,
    Entity,
    Id,
    InvalidTransition,
    ListOf,
    Name,
    NotFound,
    Query,
    Reply,
    Request,
    Text,
    Time,
)
from contracts.agents._fields import RunningAgentId, SessionNumber
from contracts.planning.tasks import Incarnation, StaleIncarnation

EXAMPLE_AGENT = "0199c0de-0000-7000-8000-000000000001"

MAX_CONTENT_BYTES = 256 * 1024

MAX_JSON_BYTES = 768 * 1024
"""How much a content may take up in a reply; a message holds 1 MiB by default."""


def _fits_a_reply(content: str) -> str:
    """What is kept must be readable again, and JSON writes a character with up to six bytes."""
    size = len(content.encode())
    if size > MAX_CONTENT_BYTES:
        raise ValueError(f"must not be larger than {MAX_CONTENT_BYTES} bytes")
    if size * 6 > MAX_JSON_BYTES and len(to_json(content)) > MAX_JSON_BYTES:
        raise ValueError(f"must not be larger than {MAX_JSON_BYTES} bytes as JSON")
    return content


Content = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=MAX_CONTENT_BYTES),
    AfterValidator(_fits_a_reply),
]
"""Raw JSON Lines, up to 256 KiB."""


class LogChunkNotFound(NotFound, detail="log chunk {id} does not exist"):
    """There is no such log chunk, or its retention is over."""

    id: Id


class LogChunk(Entity, not_found=LogChunkNotFound):
    """A piece of the output of an agent. It outlives its agent and never changes."""

    agent_id: RunningAgentId
    agent_name: Name | None
    """The agent's name at the time; null if there was no such agent."""
    session_number: SessionNumber
    content: Content


class NewLogChunk(Reply):
    """A log chunk that was stored."""

    id: Id
    created_at: Time


class NewLogChunks(Reply):
    """The log chunks that were stored, in the order of the request."""

    items: list[NewLogChunk]


class LogDeletion(Reply):
    """How much of a log was deleted."""

    deleted: Count
    remaining: bool
    """Whether there is more: one request deletes a bounded number."""


class SessionCount(Reply):
    """How many sessions an agent has logged."""

    agent_id: RunningAgentId
    sessions: Count
    """The distinct session numbers among the chunks that are still kept."""


class AppendLogChunk(
    Command[NewLogChunk],
    subject="db.log_chunks.append",
    errors=(InvalidTransition, StaleIncarnation),
    example={"agent_id": EXAMPLE_AGENT, "content": '{"role": "assistant", "text": "Done."}\n'},
):
    """Append a piece of text to the log of an agent. The agent need not be registered.

    If it is registered and has ended, nothing can be appended until it is resumed.
    """

    id: Id | None = None
    agent_id: RunningAgentId
    incarnation: Incarnation | None = None
    agent_name: Name | None = None
    """If left out, the name under which the agent is registered."""
    session_number: SessionNumber = 1
    content: Content


class LogChunkItem(Request):
    """One of many log chunks."""

    content: Content


class AppendManyLogChunks(
    Command[NewLogChunks],
    subject="db.log_chunks.append_many",
    errors=(InvalidTransition, StaleIncarnation),
    example={
        "agent_id": EXAMPLE_AGENT,
        "items": [{"content": '{"text": "one"}\n'}, {"content": '{"text": "two"}\n'}],
    },
):
    """Append up to 500 pieces to one log in their order, all or nothing."""

    agent_id: RunningAgentId
    incarnation: Incarnation | None = None
    agent_name: Name | None = None
    session_number: SessionNumber = 1
    items: Annotated[list[LogChunkItem], Field(min_length=1, max_length=500)]


class ListLogChunks(
    ListOf[LogChunk],
    subject="db.log_chunks.list",
    example={"agent_id": EXAMPLE_AGENT, "session_number": 2, "order": "-created_at"},
):
    """List a log a page at a time, forward or backward. A page ends where its reply is full."""

    agent_id: RunningAgentId
    session_number: SessionNumber | None = None
    order: Literal["created_at", "-created_at"] = "created_at"


class DeleteLogChunks(
    Command[LogDeletion],
    subject="db.log_chunks.delete",
    example={"agent_id": EXAMPLE_AGENT},
):
    """Delete the log of an agent, oldest chunks first, a bounded number with each request."""

    agent_id: RunningAgentId


class CountLogSessions(
    Query[SessionCount],
    subject="db.log_chunks.session_count",
    expensive=True,
    example={"agent_id": EXAMPLE_AGENT},
):
    """Count the sessions of an agent that are in its log."""

    agent_id: RunningAgentId
