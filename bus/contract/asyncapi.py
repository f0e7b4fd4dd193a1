"""An AsyncAPI 3.0 document of everything that is declared, or of one context.

Schemas and replies are written once and referred to, so that the document of a context always
fits one message, and that of a few hundred operations still does. All replies share one channel: an
address that the caller picks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus.contract import headers as _headers
from bus.contract.catalogue import Catalogue, Context
from bus.contract.errors import EVERYWHERE
from bus.contract.event import Event
from bus.contract.operation import Operation
from bus.contract.refusals import Refusal
from bus.contract.schemas import definitions, example_of

Json = dict[str, Any]

_SCHEMA_REF = "#/components/schemas/{model}"

_INFO = """\
Requests are JSON objects; the body of a refusal is a problem document (RFC 9457), distinguished
from a reply by the header `Nats-Service-Error-Code`. Events are CloudEvents 1.0 in binary mode,
kept in a JetStream stream."""

_REPLIES = """\
Where answers go: the reply subject of the request. Each request gets exactly one answer."""


def document(catalogue: Catalogue, version: str, context: str | None = None) -> Json:
    """Servers, channels, operations, messages and schemas: all, or those of one context.

    The document of a context is complete in itself: events of other contexts that its operations
    emit are in it too.
    """
    selected = catalogue if context is None else catalogue.only(context)
    events = _events(selected)
    errors = _errors(selected)
    models = {operation.declared.reply for operation in selected.operations}
    refs, schemas = definitions(
        [*selected.operations, *sorted(models, key=_name), *events], errors, _SCHEMA_REF
    )
    owners = {event.fact.context for event in events}
    tagged = [c for c in catalogue.contexts if c in selected.contexts or c.name in owners]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fleetbus" if context is None else f"fleetbus {context}",
            "version": version,
            "description": _INFO,
            "tags": [{"$ref": f"#/components/tags/{c.name}"} for c in selected.contexts],
        },
        "defaultContentType": "application/json",
        "servers": {"nats": _server()},
        "channels": _channels(selected, events, errors, refs),
        "operations": {o.declared.subject: _operation(o, refs) for o in selected.operations}
        | {_channel_of(event): _telling(event) for event in events},
        "components": {
            "schemas": schemas | _headers.SCHEMAS,
            "tags": {c.name: _tag(c) for c in tagged},
            "parameters": {"id": {"description": "The id of the entity that the event is about."}},
        },
    }


def event_address(event: type[Event]) -> str:
    """Where an event is published: ``events.task.completed.{id}``."""
    return f"{_channel_of(event)}.{{id}}"


def _channel_of(event: type[Event]) -> str:
    return f"events.{event.fact.type}"


def _events(catalogue: Catalogue) -> list[type[Event]]:
    """Those of the contexts, then those of others that operations emit, each once."""
    emitted = {event for o in catalogue.operations for event in o.declared.emits}
    return [*catalogue.events, *sorted(emitted - set(catalogue.events), key=_channel_of)]


def _errors(catalogue: Catalogue) -> list[type[Refusal]]:
    """Those that any operation may answer, then the declared ones, each once."""
    declared = {error for o in catalogue.operations for error in o.declared.errors}
    return [*EVERYWHERE, *sorted(declared, key=_name)]


def _name(cls: type) -> str:
    return cls.__name__


def _server() -> Json:
    return {
        "host": "{host}",
        "protocol": "nats",
        "variables": {"host": {"default": "localhost:4222", "description": "Host and port."}},
    }


def _tag(context: Context) -> Json:
    return {"name": context.name, "description": context.summary}


def _channels(
    catalogue: Catalogue,
    events: Iterable[type[Event]],
    errors: Iterable[type[Refusal]],
    refs: dict[type, str],
) -> Json:
    channels: Json = {}
    for operation in catalogue.operations:
        subject = operation.declared.subject
        channels[subject] = {"address": subject, "messages": {"request": _request(operation, refs)}}
    answers: Json = {}
    for operation in catalogue.operations:
        ref = refs[operation.declared.reply]
        answers[_key(ref)] = _message(ref, "ReplyHeaders")
    for error in errors:
        answers[error.type] = _message(refs[error], "ErrorHeaders") | {"summary": error.title}
    channels["replies"] = {"address": None, "description": _REPLIES, "messages": answers}
    for event in events:
        channels[_channel_of(event)] = {
            "address": event_address(event),
            "parameters": {"id": {"$ref": "#/components/parameters/id"}},
            "messages": {"event": _message(refs[event], "EventHeaders")},
        }
    return channels


def _request(operation: type[Operation[Any]], refs: dict[type, str]) -> Json:
    headers = "CommandHeaders" if operation.declared.kind == "command" else "QueryHeaders"
    example = {"payload": example_of(operation)}
    return _message(refs[operation], headers) | {"examples": [example]}


def _message(ref: str, headers: str) -> Json:
    return {
        "name": _key(ref),
        "headers": {"$ref": _SCHEMA_REF.format(model=headers)},
        "payload": {"$ref": ref},
    }


def _operation(operation: type[Operation[Any]], refs: dict[type, str]) -> Json:
    declared = operation.declared
    errors: list[type[Refusal]] = [*declared.errors, *EVERYWHERE]
    answers = [_key(refs[declared.reply]), *(error.type for error in errors)]
    described: Json = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{declared.subject}"},
        "summary": declared.summary,
        "tags": [{"$ref": f"#/components/tags/{declared.context}"}],
        "reply": {
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": f"#/channels/replies/messages/{name}"} for name in answers],
        },
        "x-kind": declared.kind,
    }
    if declared.emits:
        described["x-emits"] = [
            {"$ref": f"#/operations/{_channel_of(event)}"} for event in declared.emits
        ]
    return described


def _telling(event: type[Event]) -> Json:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_channel_of(event)}"},
        "summary": event.fact.summary,
        "tags": [{"$ref": f"#/components/tags/{event.fact.context}"}],
    }


def _key(ref: str) -> str:
    return ref.rsplit("/", 1)[1]
