"""JSON Schemas of the message headers; the values of NATS headers are text."""

from __future__ import annotations

from typing import Any

_REQUEST = {
    "Fleet-Deadline": {
        "type": "string",
        "pattern": "^[0-9]{1,15}$",
        "description": "Unix time in milliseconds, after which the caller no longer listens.",
    },
    "traceparent": {
        "type": "string",
        "description": "W3C trace context, passed on to events.",
    },
}

_COMMAND = {
    "Nats-Msg-Id": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "Idempotency key: a repetition with the same key gets the stored reply.",
    },
    "Fleet-Dry-Run": {
        "type": "string",
        "enum": ["true", "false"],
        "description": "`true`: run the command, answer as usual, then roll back.",
    },
}

_POSITION = {"type": "string", "pattern": "^[0-9]+$"}

_REPLY = {
    "Fleet-Position": _POSITION
    | {"description": "The transaction's highest outbox position; absent if it emitted no event."},
    "Fleet-Replayed": {
        "const": "true",
        "description": "Present when this is the stored reply of an earlier request.",
    },
}

_ERROR = {
    "Nats-Service-Error-Code": {
        "type": "string",
        "pattern": "^[45][0-9]{2}$",
        "description": "The status of the problem document.",
    },
    "Nats-Service-Error": {
        "type": "string",
        "maxLength": 200,
        "description": "Its detail in one line.",
    },
}

_EVENT = {
    "Nats-Msg-Id": {"type": "string", "format": "uuid", "description": "The same as `ce-id`."},
    "ce-id": {
        "type": "string",
        "format": "uuid",
        "description": "The event's id; the same on any redelivery.",
    },
    "ce-specversion": {"const": "1.0"},
    "ce-type": {"type": "string", "description": "`<entity>.<fact>`, e.g. `task.completed`."},
    "ce-source": {"type": "string"},
    "ce-subject": {"type": "string", "description": "The entity's id."},
    "ce-time": {
        "type": "string",
        "format": "date-time",
        "description": "When the transaction recorded it.",
    },
    "ce-datacontenttype": {"const": "application/json"},
    "Fleet-Position": _POSITION
    | {"description": "Its place in the outbox: unique, increasing per entity."},
}

_EVENT_OPTIONAL = {
    "Fleet-Cause": {
        "type": "string",
        "description": "`Nats-Msg-Id` of the command, or `reaction:<name>` or `sweeper:<name>`.",
    },
    "traceparent": {
        "type": "string",
        "description": "W3C trace context of the request that caused it.",
    },
}


def _schema(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": required | optional}
    return schema | {"required": list(required)} if required else schema


SCHEMAS = {
    "QueryHeaders": _schema({}, _REQUEST),
    "CommandHeaders": _schema({}, _COMMAND | _REQUEST),
    "ReplyHeaders": _schema({}, _REPLY),
    "ErrorHeaders": _schema(_ERROR, _REPLY),
    "EventHeaders": _schema(_EVENT, _EVENT_OPTIONAL),
}
