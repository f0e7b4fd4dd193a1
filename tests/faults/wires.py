"""What travels on a connection, cut into messages: as much of each protocol as a fault must know.

NATS: https://docs.nats.io/reference/reference-protocols/nats-protocol. Postgres:
https://www.postgresql.org/docs/current/protocol-message-formats.html.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PROTOCOL_3 = 196_608
CRLF = b"\r\n"
WITH_PAYLOAD = {b"PUB", b"HPUB", b"MSG", b"HMSG"}
TELLS = re.compile(rb"INSERT INTO bus\.outbox\b")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, whole."""

    raw: bytes
    subject: str = ""
    """NATS: what it was published to."""
    payload: bytes = b""
    """NATS: headers and body."""
    commits: bool = False
    """Postgres: it asks for a COMMIT."""
    tells: bool = False
    """Postgres: the transaction has inserted into the outbox."""


class Wire(Protocol):
    """Cuts the bytes of one direction of one connection into messages."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that are complete with these bytes."""
        ...


class Opaque:
    """Bytes that nobody looks into."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        yield Frame(data)


class NatsWire:
    """Either direction of a NATS connection."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while (frame := self._next()) is not None:
            self._buffer = self._buffer[len(frame.raw) :]
            yield frame

    def _next(self) -> Frame | None:
        line, found, _ = self._buffer.partition(CRLF)
        if not found:
            return None
        words = line.split()
        if not words or words[0].upper() not in WITH_PAYLOAD:
            return Frame(line + CRLF)
        start = len(line) + len(CRLF)
        end = start + int(words[-1])
        if len(self._buffer) < end + len(CRLF):
            return None
        whole = self._buffer[: end + len(CRLF)]
        return Frame(whole, subject=words[1].decode(), payload=self._buffer[start:end])


class PostgresRequests:
    """What a client says to Postgres."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._statements: dict[bytes, bytes] = {}
        self._tells = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while (raw := self._next()) is not None:
            self._buffer = self._buffer[len(raw) :]
            yield self._frame(raw)

    def _next(self) -> bytes | None:
        """The next message; those before the start-up have no type in front of their length."""
        head = int(self._started)
        if len(self._buffer) < head + 4:
            return None
        size = head + int(struct.unpack_from("!i", self._buffer, head)[0])
        return self._buffer[:size] if len(self._buffer) >= size else None

    def _frame(self, raw: bytes) -> Frame:
        if not self._started:
            self._started = struct.unpack_from("!i", raw, 4)[0] == PROTOCOL_3
            return Frame(raw)
        kind, body = raw[:1], raw[5:]
        if kind == b"Q":
            return self._statement(raw, body.split(b"\0")[0])
        if kind == b"P":
            name, sql = body.split(b"\0")[:2]
            self._statements[name] = sql
        elif kind == b"B":
            name = body.split(b"\0")[1]
            self._tells |= TELLS.search(self._statements.get(name, b"")) is not None
        return Frame(raw)

    def _statement(self, raw: bytes, sql: bytes) -> Frame:
        word = sql.strip().rstrip(b";").upper()
        self._tells |= TELLS.search(sql) is not None
        frame = Frame(raw, commits=word == b"COMMIT", tells=self._tells)
        if word.startswith((b"BEGIN", b"COMMIT", b"ROLLBACK")):
            self._tells = False
        return frame
