"""What is seen of a running fleet, asked for over NATS and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.nats_io import flush
from fleetbus.cli.connection import ask
from fleetbus.cli.terminal import Failed

STATUSES = ("running", "waiting_for_input", "idle", "crashed")
"""Whose agents are shown, in this order; those that were stopped are of the past."""

AGENTS_PER_STATUS = 50

STATS_SUBJECT = "$SRV.STATS"

ANSWERS_END = 0.5
"""Seconds after which, when no further process has answered, none will."""

QUEUE_EVERY = 5.0
"""Seconds between two counts of the queue: counting a large plan takes the database a while."""

EVENTS_KEPT = 8

RATE_WINDOW = 10.0
"""Seconds over which the rate of events is taken."""


@dataclass(frozen=True)
class Operation:
    """The figures of one subject, of all processes together."""

    subject: str
    requests: int
    errors: int
    p99_ms: float


@dataclass(frozen=True)
class Snapshot:
    """One look. What could not be had is None, with the reason among the problems."""

    at: float
    processes: Sequence[dict[str, Any]]
    """What each process says of itself."""
    operations: Sequence[Operation]
    agents: Sequence[dict[str, Any]] | None
    tasks: dict[str, str]
    """Names of the tasks that agents work on, by id."""
    queue: dict[str, int] | None
    events_per_second: float
    latest: Sequence[str]
    problems: Sequence[str] = ()


@dataclass
class Collector:
    """Looks again and again; ``start`` first, so that no event is missed."""

    client: Client
    _queue: dict[str, int] | None = None
    _queue_task: asyncio.Task[None] | None = None
    _queue_at: float = float("-inf")
    _names: dict[str, str] = field(default_factory=dict)
    _times: deque[float] = field(default_factory=deque)
    _latest: deque[str] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))

    async def start(self) -> None:
        """Listen to events."""
        await self.client.subscribe("events.>", cb=self._count)
        await flush(self.client)

    async def look(self) -> Snapshot:
        """Ask everything at once."""
        problems: list[str] = []
        statistics, agents = await asyncio.gather(self._statistics(), self._agents(problems))
        tasks = await self._task_names(agents or ())
        if not statistics:
            problems.append("no handler process answers")
        await self._count_queue(problems)
        return Snapshot(
            at=time.monotonic(),
            processes=_processes(statistics),
            operations=_operations(statistics),
            agents=agents,
            tasks=tasks,
            queue=self._queue,
            events_per_second=self._rate(),
            latest=tuple(self._latest),
            problems=problems,
        )

    async def _statistics(self) -> list[dict[str, Any]]:
        """The answer of each service of each process."""
        inbox = self.client.new_inbox()
        answers = await self.client.subscribe(inbox)
        await self.client.publish(STATS_SUBJECT, reply=inbox)
        found = []
        try:
            while True:
                message = await answers.next_msg(timeout=ANSWERS_END)
                with contextlib.suppress(ValueError):  # anybody may answer there
                    found.append(json.loads(message.data))
        except TimeoutError:
            return found
        finally:
            await answers.unsubscribe()

    async def _agents(self, problems: list[str]) -> list[dict[str, Any]] | None:
        requests = [
            {"status": status, "limit": AGENTS_PER_STATUS, "order": "-created_at"}
            for status in STATUSES
        ]
        try:
            pages = await asyncio.gather(
                *(ask(self.client, "db.agents.list", request) for request in requests)
            )
        except Failed as failure:
            problems.append(str(failure))
            return None
        return [agent for page in pages for agent in page["items"]]

    async def _task_names(self, agents: Sequence[dict[str, Any]]) -> dict[str, str]:
        wanted = {agent["task_id"] for agent in agents if agent["task_id"]}
        self._names = {id_: name for id_, name in self._names.items() if id_ in wanted}
        await asyncio.gather(*(self._learn(id_) for id_ in wanted - self._names.keys()))
        return self._names

    async def _learn(self, task_id: str) -> None:
        try:
            self._names[task_id] = (await ask(self.client, "db.tasks.get", {"id": task_id}))["name"]
        except Failed:
            self._names[task_id] = task_id  # deleted since

    async def _count_queue(self, problems: list[str]) -> None:
        """Begin a count now and then; only the first one is waited for."""
        task = self._queue_task
        if task is None or (task.done() and time.monotonic() - self._queue_at > QUEUE_EVERY):
            self._queue_task = asyncio.create_task(self._read_queue())
            if task is None:
                await asyncio.wait({self._queue_task}, timeout=1.0)
        if self._queue is None:
            problems.append("the queue is being counted")

    async def _read_queue(self) -> None:
        try:
            self._queue = await ask(self.client, "db.tasks.queue")
        except Failed:
            self._queue = None
        self._queue_at = time.monotonic()

    async def _count(self, message: Msg) -> None:
        from fleetbus.cli.events import line

        self._times.append(time.monotonic())
        self._latest.append(line(message))

    def _rate(self) -> float:
        now = time.monotonic()
        while self._times and now - self._times[0] > RATE_WINDOW:
            self._times.popleft()
        return len(self._times) / RATE_WINDOW


def _operations(statistics: Sequence[dict[str, Any]]) -> list[Operation]:
    """The endpoints of all processes, added up by subject; of the p99 the worst counts."""
    found: dict[str, Operation] = {}
    for service in statistics:
        for endpoint in service["endpoints"]:
            subject, data = endpoint["subject"], endpoint.get("data") or {}
            before = found.get(subject, Operation(subject, 0, 0, 0.0))
            found[subject] = Operation(
                subject,
                before.requests + endpoint["num_requests"],
                before.errors + endpoint["num_errors"],
                max(before.p99_ms, data.get("p99_ns", 0) / 1e6),
            )
    return list(found.values())


def _processes(statistics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        endpoint["data"]["process"]
        for service in statistics
        for endpoint in service["endpoints"]
        if "process" in (endpoint.get("data") or {})
    ]
