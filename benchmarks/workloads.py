"""What is measured: the requests of each workload, and the rows that they need."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

PAGE = 50

CATALOGUE_ROWS = 10_000
"""Tasks in the table for workloads that do not use them up."""

AGENTS = 100
"""Agents that there are, to be written about."""

AGENT_PREFIX = 0x6000_0000
CHUNK_BYTES = 1024

DESCRIPTION = "What is to be done, and why. " * 6
SUMMARY = "Added the column, backfilled it, and the tests pass."

Status = Literal["pending", "in_progress"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, in the words of NATS and in those of HTTP."""

    subject: str
    body: bytes
    method: str
    path: str
    command: bool = True


def id_of(prefix: int, number: int) -> str:
    """The id of a prepared row."""
    return f"{prefix:08x}-0000-7000-8000-{number:012x}"


@dataclass(frozen=True)
class Tasks:
    """The tasks that were prepared: ids are made from a prefix and a number, none is sent along."""

    prefix: int
    rows: int

    def id(self, number: int) -> str:
        """The id of one of them."""
        return id_of(self.prefix, number)

    def any(self) -> str:
        """The id of one at random."""
        return self.id(random.randrange(self.rows))


@dataclass(frozen=True)
class Workload:
    """A kind of request, or a mixture."""

    name: str
    title: str
    subjects: tuple[str, ...]
    requests: Callable[[Tasks], Iterator[Request]]
    status: Status | None = "in_progress"
    """The status of the prepared tasks; None where none are needed."""
    share_used: float = 0.0
    """Prepared tasks that one request uses up."""

    def rows(self, operations: float) -> int:
        """How many tasks so many requests need."""
        return CATALOGUE_ROWS + int(operations * self.share_used)


def complete(id_: str) -> Request:
    body = {"id": id_, "attempt": 1, "summary": SUMMARY}
    return Request("db.tasks.complete", _json(body), "POST", f"/tasks/{id_}/complete")


def create(number: int) -> Request:
    body = {"name": f"Task {number}", "description": DESCRIPTION, "priority": "high"}
    return Request("db.tasks.create", _json(body), "POST", "/tasks")


def get(id_: str) -> Request:
    return Request("db.tasks.get", _json({"id": id_}), "GET", f"/tasks/{id_}", command=False)


def list_page() -> Request:
    body = _json({"limit": PAGE})
    return Request("db.tasks.list", body, "GET", f"/tasks?limit={PAGE}", command=False)


def claim(number: int) -> Request:
    return Request(
        "db.tasks.claim", _json({"agent_id": f"agent-{number % 1000}"}), "POST", "/tasks/claim"
    )


def append(number: int) -> Request:
    agent_id = id_of(AGENT_PREFIX, number % AGENTS)
    line = f"{number:08d} ".ljust(CHUNK_BYTES - 1, ".") + "\n"
    body = {"agent_id": agent_id, "content": line}
    return Request("db.log_chunks.append", _json(body), "POST", f"/agents/{agent_id}/log_chunks")


def _completes(tasks: Tasks) -> Iterator[Request]:
    for number in range(tasks.rows):
        yield complete(tasks.id(number))


def _creates(_: Tasks) -> Iterator[Request]:
    number = 0
    while True:
        yield create(number)
        number += 1


def _gets(tasks: Tasks) -> Iterator[Request]:
    while True:
        yield get(tasks.any())


def _lists(_: Tasks) -> Iterator[Request]:
    while True:
        yield list_page()


def _claims(_: Tasks) -> Iterator[Request]:
    number = 0
    while True:
        yield claim(number)
        number += 1


def _appends(_: Tasks) -> Iterator[Request]:
    number = 0
    while True:
        yield append(number)
        number += 1


def _mix(tasks: Tasks) -> Iterator[Request]:
    """Seven reads, two completions and a creation in ten, in a random order."""
    number = 0
    for completed in range(tasks.rows):
        batch = [get(tasks.any()) for _ in range(3)] + [complete(tasks.id(completed))]
        if completed % 2:
            batch += [get(tasks.any()), create(number)]
            number += 1
        random.shuffle(batch)
        yield from batch


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("complete", "complete a task", ("db.tasks.complete",), _completes, share_used=1.0),
        Workload("create", "create a task", ("db.tasks.create",), _creates, status=None),
        Workload("get", "read a task by id", ("db.tasks.get",), _gets),
        Workload("list", f"list {PAGE} tasks", ("db.tasks.list",), _lists),
        Workload(
            "claim", "claim a task", ("db.tasks.claim",), _claims, status="pending", share_used=1.0
        ),
        Workload(
            "append", "append 1 KiB to a log", ("db.log_chunks.append",), _appends, status=None
        ),
        Workload(
            "mix",
            "70 % reads, 20 % complete, 10 % create",
            ("db.tasks.get", "db.tasks.complete", "db.tasks.create"),
            _mix,
            share_used=0.25,
        ),
    )
}


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
