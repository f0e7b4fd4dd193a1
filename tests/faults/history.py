"""What was asked and what came back: one JSON line each, as it happens, to be judged afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "unknown"]

NO_RESPONDERS = 1503
"""No status of ours: NATS told that nobody takes requests on this subject."""

REFUSED = {400, 401, 403, 404, 409, 413, 422, 429, 504, NO_RESPONDERS}
"""Statuses after which nothing was stored; 503 may be a COMMIT without an answer."""


@dataclass(frozen=True)
class Reply:
    """One answer that arrived."""

    at: float
    status: int
    body: str
    position: int | None = None
    replayed: bool = False


@dataclass
class Exchange:
    """A request that was sent once; the same request may be sent several times."""

    number: int
    client: str
    subject: str
    body: dict[str, Any]
    value: str
    """Unique text in the body, "" where there is room for none."""
    key: str | None
    sent: float
    gave_up: float | None = None
    replies: list[Reply] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """Whether it took effect, as far as its sender can know."""
        if not self.replies:
            return "unknown"
        status = self.replies[0].status
        if status == 200:
            return "ok"
        return "fail" if status in REFUSED else "unknown"

    @property
    def reply(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = json.loads(self.replies[0].body)
        return body


@dataclass(frozen=True)
class Fault:
    """Something that was done to the system."""

    name: str
    target: str
    began: float
    ended: float
    excuses: bool
    """Whether a request may stay without an answer because of it."""
    loses: bool = False
    """Whether it took events out of the stream."""


@dataclass
class History:
    """Everything that the clients saw, and what was done to the system meanwhile."""

    exchanges: list[Exchange] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def requests(self) -> list[list[Exchange]]:
        """Exchanges of the same request together, in the order in which they were sent."""
        found: dict[str, list[Exchange]] = {}
        for exchange in self.exchanges:
            name = exchange.key or f"without key {exchange.number}"
            found.setdefault(name, []).append(exchange)
        return list(found.values())


def outcome(exchanges: Iterable[Exchange]) -> Outcome:
    """What became of a request that was sent so many times."""
    outcomes = {exchange.outcome for exchange in exchanges}
    if "ok" in outcomes:
        return "ok"
    return "unknown" if "unknown" in outcomes else "fail"


class Recorder:
    """Writes a history as it happens."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.history = History()
        self.path = file
        self._file = file.open("w")

    def close(self) -> None:
        self._file.close()

    def sent(
        self, client: str, subject: str, body: dict[str, Any], *, value: str, key: str | None
    ) -> Exchange:
        number = len(self.history.exchanges) + 1
        exchange = Exchange(number, client, subject, body, value, key, time.monotonic())
        self.history.exchanges.append(exchange)
        self._write("invoke", asdict(exchange))
        return exchange

    def answered(self, exchange: Exchange, reply: Reply) -> None:
        exchange.replies.append(reply)
        kind = exchange.outcome if len(exchange.replies) == 1 else "again"
        self._write(kind, {"number": exchange.number, **asdict(reply)})

    def gave_up(self, exchange: Exchange) -> None:
        exchange.gave_up = time.monotonic()
        self._write("gave_up", {"number": exchange.number, "at": exchange.gave_up})

    def fault(self, fault: Fault) -> None:
        self.history.faults.append(fault)
        self._write("fault", asdict(fault))

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()


def read(lines: Iterable[str]) -> History:
    """The history that was written in these lines."""
    history = History()
    by_number: dict[int, Exchange] = {}
    for kind, values in _entries(lines):
        if kind == "invoke":
            exchange = Exchange(**values)
            by_number[exchange.number] = exchange
            history.exchanges.append(exchange)
        elif kind == "fault":
            history.faults.append(Fault(**values))
        elif kind == "gave_up":
            by_number[values["number"]].gave_up = values["at"]
        else:
            by_number[values.pop("number")].replies.append(Reply(**values))
    return history


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in lines:
        values = json.loads(line)
        yield values.pop("kind"), values
