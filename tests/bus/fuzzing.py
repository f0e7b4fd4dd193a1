"""Requests that no decent client sends, made from an operation's JSON Schema by a seeded random."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_BODY = 1024 * 1024 - 8_192
"""Headers count as payload; beyond the server's ``max_payload`` the sender is cut off."""

DEEP: Any = "bottom"
for _ in range(90):
    DEEP = [DEEP]

NASTY: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    1.5,
    1e22,
    1e305,
    1e-320,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "a\x00b",
    "\ud800",
    "\U0001f980\u202e\u2028",
    "%",
    "\\",
    "'; DROP TABLE planning.tasks; --",
    "*",
    ">",
    "..",
    "line\r\nbreak",
    "x" * 100_001,
    "\x01" * 20_000,
    "00000000-0000-0000-0000-000000000000",
    "{0199c0de-0000-7000-8000-000000000001}",
    "0199c0de-0000-7000-8000",
    "2026-13-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00",
    "W10",
    [],
    {},
    [None],
    [[[[]]]],
    {"a": {"b": None}},
    {"\x00": 1},
    {"": ""},
    ["x"] * 1_000,
    {"n": float("nan")},
    {"big": 10**310},
    {"deep": DEEP},
    DEEP,
)

HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Nats-Msg-Id": "k" * 200},
    {"Nats-Msg-Id": "k" * 201},
    {"Nats-Msg-Id": "ключ"},
    {"Nats-Msg-Id": " "},
    {"Fleet-Deadline": "never"},
    {"Fleet-Deadline": "99999999999999999999"},
    {"Fleet-Deadline": "٣"},
    {"Fleet-Deadline": "999999999999999"},
    {"Fleet-Dry-Run": "yes"},
    {"Fleet-Dry-Run": "TRUE"},
    {"traceparent": "\x7f" * 600},
    {"traceparent": "00-x"},
    {"X-Unknown": "é" * 3_000},
    {"Nats-Service-Error-Code": "200", "Fleet-Replayed": "true"},
)


class Fuzzer:
    """Makes requests to operations; the same seed makes the same ones."""

    def __init__(self, seed: int, ids: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._ids = ids
        self._kinds: tuple[Callable[[Mapping[str, Any]], bytes], ...] = (
            self._garbage,
            self._no_object,
            self._truncated,
            self._doubled,
            self._one_wrong,
            self._one_wrong,
            self._one_wrong,
            self._unknown,
            self._all_wrong,
            self._as_asked,
            self._long,
        )

    def request(self, schema: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """A body, and headers."""
        body = self._random.choice(self._kinds)(schema)
        headers = self._random.choice(HEADERS) if self._random.random() < 0.3 else {}
        return body[:MAX_BODY], dict(headers)

    def _garbage(self, _: Mapping[str, Any]) -> bytes:
        texts = (b"{", b"}", b"{]", b"\x00", b"\xff\xfe{}", b"nul", b"{'id': 1}", b'{"a":1}}', b"-")
        return self._random.choice((*texts, b"[" * 50_000, b'{"a":' * 5_000, b"\xef\xbb\xbf{}"))

    def _no_object(self, _: Mapping[str, Any]) -> bytes:
        return self._dump(self._random.choice(NASTY))

    def _truncated(self, schema: Mapping[str, Any]) -> bytes:
        body = self._as_asked(schema)
        return body[: self._random.randrange(1, len(body) + 1)]

    def _doubled(self, schema: Mapping[str, Any]) -> bytes:
        body = self._as_asked(schema)
        return b"{" + body[1:-1] + (b"," if body[1:-1].strip() else b"") + body[1:]

    def _one_wrong(self, schema: Mapping[str, Any]) -> bytes:
        body = self._object(schema, schema, share=0.5)
        names = list(schema.get("properties", {})) or ["id"]
        body[self._random.choice(names)] = self._random.choice(NASTY)
        return self._dump(body)

    def _unknown(self, schema: Mapping[str, Any]) -> bytes:
        body = self._object(schema, schema, share=0.3)
        body[self._random.choice(("", "ID", "__class__", "\x00", "x" * 5_000))] = 1
        return self._dump(body)

    def _all_wrong(self, schema: Mapping[str, Any]) -> bytes:
        names = list(schema.get("properties", {}))
        return self._dump({name: self._random.choice(NASTY) for name in names})

    def _as_asked(self, schema: Mapping[str, Any]) -> bytes:
        return self._dump(self._object(schema, schema, share=0.5))

    def _long(self, schema: Mapping[str, Any]) -> bytes:
        body = self._object(schema, schema, share=0.2)
        names = [*schema.get("properties", {}), "more"]
        body[self._random.choice(names)] = "y" * (MAX_BODY - 500 - len(self._dump(body)))
        return self._dump(body)

    def _dump(self, value: Any) -> bytes:
        readable = json.dumps(value, ensure_ascii=self._random.random() < 0.7)
        return readable.encode("utf-8", "surrogatepass")

    def _object(
        self, schema: Mapping[str, Any], root: Mapping[str, Any], *, share: float
    ) -> dict[str, Any]:
        required = schema.get("required", [])
        return {
            name: self._value(field, root)
            for name, field in schema.get("properties", {}).items()
            if name in required or self._random.random() < share
        }

    def _value(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            return self._value(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._value(self._random.choice(schema[keyword]), root)
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        match schema.get("type"):
            case "string":
                return self._text(schema)
            case "integer" | "number":
                limits = (schema.get("minimum", -5), schema.get("maximum", 5), 1, 3)
                return self._random.choice(limits)
            case "boolean":
                return self._random.random() < 0.5
            case "array":
                count = self._random.randrange(4)
                return [self._value(schema.get("items", {}), root) for _ in range(count)]
            case "object":
                return self._object(schema, root, share=0.5)
            case "null":
                return None
            case _:
                return self._random.choice(NASTY)

    def _text(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") == "uuid":
            return self._random.choice(self._ids)
        if schema.get("format") == "date-time":
            return "2026-01-31T12:00:00Z"
        length = self._random.choice((schema.get("minLength", 0), schema.get("maxLength", 20), 5))
        letters = "abcdefghij\u00e9\U0001f980" if "pattern" not in schema else "abcdefghij"
        return "".join(self._random.choices(letters, k=min(length, 2_000)))
