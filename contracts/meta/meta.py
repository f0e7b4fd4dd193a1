"""The operations themselves: which there are, and what each takes, answers, refuses and emits."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from bus.contract import Name, NotFound, Page, Query, Reply


class OperationNotFound(NotFound, detail="there is no operation {subject}"):
    """There is no operation with this subject."""

    subject: str


class ContextNotFound(NotFound):
    """There is no context with this name."""

    context: str
    known: list[str]
    """The names of all contexts."""

    @property
    def detail(self) -> str:
        """Which name it is, and which there are."""
        return f"there is no context {self.context}; there are {', '.join(self.known)}"


class OperationSummary(Reply):
    """An operation in one line."""

    subject: str
    kind: Literal["command", "query"]
    context: str
    """The name of the NATS service that it belongs to."""
    summary: str
    errors: list[str]
    """The types of the errors that it declares; there are others that any operation may answer."""
    emits: list[str]
    """The types of the events that it may emit."""
    transactional: bool
    """Whether it may be one of several commands in a transaction."""


class ErrorDescription(Reply):
    """An error that an operation may answer."""

    type: str
    title: str
    status: int
    retryable: bool
    declared: bool
    """Whether the operation itself declares it; the others may be the answer of any operation."""
    body: dict[str, Any]
    """The JSON Schema of the problem document."""


class EventDescription(Reply):
    """An event that an operation may emit."""

    type: str
    subject: str
    """Where it is published; the last token is the entity's id."""
    summary: str
    body: dict[str, Any]
    """The JSON Schema of its data."""


class OperationDescription(Reply):
    """Everything there is to know about an operation; each JSON Schema is self-contained."""

    subject: str
    kind: Literal["command", "query"]
    context: str
    summary: str
    description: str
    request: dict[str, Any]
    """The JSON Schema (2020-12) of the request."""
    reply: dict[str, Any]
    """The JSON Schema (2020-12) of the reply."""
    errors: list[ErrorDescription]
    events: list[EventDescription]
    example: dict[str, Any]
    """A valid request."""


class AsyncApi(Reply):
    """An AsyncAPI 3.0 document; the fields are those of its specification."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    when_too_large: ClassVar[str] = "ask for one context, or run fleetbus export asyncapi"

    asyncapi: str
    info: dict[str, Any]
    default_content_type: str = Field(alias="defaultContentType")
    servers: dict[str, Any]
    channels: dict[str, Any]
    operations: dict[str, Any]
    components: dict[str, Any]


class ListOperations(Query[Page[OperationSummary]], subject="db.meta.operations"):
    """List all operations, by context and subject, on one page."""


class DescribeOperation(
    Query[OperationDescription],
    subject="db.meta.describe",
    errors=(OperationNotFound,),
    example={"subject": "db.tasks.get"},
):
    """Describe an operation: JSON Schemas of request, reply, errors and events, and an example."""

    subject: Name
    """The operation's subject, ``db.<noun>.<verb>``."""


class GetAsyncApi(
    Query[AsyncApi],
    subject="db.meta.asyncapi",
    errors=(ContextNotFound,),
    example={"context": "planning"},
):
    """Get the AsyncAPI 3.0 document of a context: operations, events, replies and errors.

    Without a context the document is of all contexts, as long as it fits into one message.
    """

    context: Name | None = None
    """The name of a context, as ``db.meta.operations`` gives it; null for all of them. The document
    of a context has everything that it refers to, including events of other contexts."""
