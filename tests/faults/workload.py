"""Clients that work on tasks, resend what got no answer, and note everything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.nats_io import flush
from tests.faults.history import NO_RESPONDERS, Exchange, Recorder, Reply
from tests.faults.nodes import connected

DEADLINE = 2.0
"""Seconds that a request gives the service."""

PATIENCE = 4.0
"""Seconds after which a client takes it that no answer will come."""

SENDS = 8
"""How often a request with a key is sent at most."""

PACE = 0.03
"""Seconds between two requests of a client: the processes need their share of time."""

FINAL = {200, 400, 404, 409, 413, 422, 500}
"""Statuses after which a request is not sent again."""


@dataclass(frozen=True)
class Asked:
    """A request as one client wants it."""

    subject: str
    body: dict[str, Any]
    value: str = ""
    key: str | None = None


class Caller:
    """A connection that notes what it sends and every answer that arrives, however late."""

    def __init__(
        self,
        name: str,
        client: Client,
        recorder: Recorder,
        *,
        deadline: float = DEADLINE,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self._deadline = deadline
        self._patience = patience
        self._client = client
        self._recorder = recorder
        self._inbox = client.new_inbox()
        self._exchanges: list[Exchange] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def listen(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._arrived)
        await flush(self._client)

    async def send(self, asked: Asked) -> Exchange:
        """Send once, and wait for an answer as long as a client would."""
        exchange = self._recorder.sent(
            self.name, asked.subject, asked.body, value=asked.value, key=asked.key
        )
        place = len(self._exchanges)
        self._exchanges.append(exchange)
        arrived = self._waiting[place] = asyncio.get_running_loop().create_future()
        headers = {"Fleet-Deadline": str(int((time.time() + self._deadline) * 1000))}
        if asked.key is not None:
            headers["Nats-Msg-Id"] = asked.key
        try:
            async with asyncio.timeout(self._patience):
                await self._client.publish(
                    asked.subject,
                    json.dumps(asked.body).encode(),
                    reply=f"{self._inbox}.{place}",
                    headers=headers,
                )
                await arrived
        except (TimeoutError, nats.errors.Error):
            self._recorder.gave_up(exchange)
        return exchange

    async def _arrived(self, message: Msg) -> None:
        place = int(message.subject.rpartition(".")[2])
        exchange = self._exchanges[place]
        self._recorder.answered(exchange, reply_of(message))
        waiting = self._waiting.pop(place, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def reply_of(message: Msg) -> Reply:
    headers = message.headers or {}
    if headers.get("Status") == "503":
        return Reply(time.monotonic(), NO_RESPONDERS, "")
    position = headers.get("Fleet-Position")
    return Reply(
        at=time.monotonic(),
        status=int(headers.get("Nats-Service-Error-Code", 200)),
        body=message.data.decode(),
        position=None if position is None else int(position),
        replayed=headers.get("Fleet-Replayed") == "true",
    )


@dataclass
class Known:
    """What the clients have learnt of each other: so they meet at the same tasks."""

    tasks: list[str] = field(default_factory=list)
    claims: list[tuple[str, int]] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)

    def learn(self, exchange: Exchange) -> None:
        if exchange.outcome != "ok":
            return
        reply = exchange.reply
        if exchange.subject == "db.tasks.claim":
            self.claims += [(one["task"]["id"], one["task"]["attempt"]) for one in reply["tasks"]]
        elif exchange.subject == "db.tasks.create":
            self.tasks.append(reply["id"])
        elif exchange.subject == "db.tasks.create_many":
            self.tasks += [item["id"] for item in reply["items"]]
        elif exchange.subject == "db.agents.register":
            self.agents.append(reply["id"])


class Worker:
    """Decides by its own seed what one client asks next."""

    def __init__(self, name: str, seed: int, known: Known) -> None:
        self._name = name
        self._random = Random(f"{seed}/{name}")
        self._known = known
        self._count = 0

    @property
    def random(self) -> Random:
        return self._random

    def next(self) -> Asked:
        self._count += 1
        kinds = {
            self._create: 5,
            self._create_many: 1,
            self._update: 4,
            self._claim: 5,
            self._complete: 4,
            self._block: 1,
            self._release: 2,
            self._retry: 1,
            self._delete: 1,
            self._get: 1,
            self._list: 1,
            self._register: 1,
            self._resume: 1,
            self._report: 1,
        }
        [kind] = self._random.choices(list(kinds), list(kinds.values()))
        return kind() or self._create()

    def _command(
        self,
        verb: str,
        body: dict[str, Any],
        *,
        keyed: bool | None = None,
        noun: str = "tasks",
    ) -> Asked:
        if keyed is None:
            keyed = self._random.random() < 0.8
        key = f"{self._name}.{self._count}.key" if keyed else None
        return Asked(f"db.{noun}.{verb}", body, self._value, key)

    @property
    def _value(self) -> str:
        """Unique, and none is a part of another."""
        return f"<{self._name}.{self._count}>"

    def _create(self) -> Asked:
        id_ = {"id": str(UUID(int=self._random.getrandbits(128), version=4))}
        chosen = id_ if self._random.random() < 0.3 else {}
        return self._command("create", {"name": self._value, **chosen})

    def _create_many(self) -> Asked:
        items = [
            {"ref": "first", "name": f"{self._value} first"},
            {"ref": "then", "name": f"{self._value} then", "depends_on": ["first"]},
            {"ref": "last", "name": f"{self._value} last", "depends_on": ["first", "then"]},
        ]
        return self._command("create_many", {"items": items}, keyed=True)

    def _update(self) -> Asked | None:
        return self._on_task("update", name=self._value)

    def _claim(self) -> Asked:
        limit, lease = self._random.randint(1, 3), self._random.choice([1, 2, 60])
        body = {"agent_id": self._value, "limit": limit, "lease_seconds": lease}
        return self._command("claim", body)

    def _complete(self) -> Asked | None:
        return self._on_claim("complete", summary=self._value)

    def _block(self) -> Asked | None:
        return self._on_claim("block", reason=self._value)

    def _release(self) -> Asked | None:
        return self._on_claim("release", reason=self._value)

    def _retry(self) -> Asked | None:
        return self._on_task("retry", keyed=True)

    def _delete(self) -> Asked | None:
        return self._on_task("delete", keyed=True)

    def _get(self) -> Asked | None:
        if not self._known.tasks:
            return None
        return Asked("db.tasks.get", {"id": self._random.choice(self._known.tasks)})

    def _list(self) -> Asked:
        return Asked("db.tasks.list", {"limit": 5, "order": "-created_at"})

    def _register(self) -> Asked:
        """An agent that dies at once: nothing is heard of it any more."""
        body = {"name": self._value, "heartbeat_interval_s": 1}
        return self._command("register", body, keyed=True, noun="agents")

    def _resume(self) -> Asked | None:
        """The next incarnation of one that is dead; it dies as well."""
        return self._on_agent("resume")

    def _report(self) -> Asked | None:
        """Somebody else finds out, beside the lease."""
        return self._on_agent("crash", reason=self._value)

    def _on_agent(self, verb: str, **body: Any) -> Asked | None:
        if not self._known.agents:
            return None
        agent = self._random.choice(self._known.agents[-4:])
        return self._command(verb, {"id": agent, **body}, keyed=True, noun="agents")

    def _on_task(self, verb: str, *, keyed: bool | None = None, **body: Any) -> Asked | None:
        if not self._known.tasks:
            return None
        task = self._random.choice(self._known.tasks[-30:])
        return self._command(verb, {"id": task, **body}, keyed=keyed)

    def _on_claim(self, verb: str, **body: Any) -> Asked | None:
        if not self._known.claims:
            return None
        task, attempt = self._random.choice(self._known.claims[-8:])
        return self._command(verb, {"id": task, "attempt": attempt, **body})


class Workload:
    """All clients together."""

    def __init__(self, callers: Sequence[Caller], seed: int) -> None:
        self.callers = list(callers)
        self.known = Known()
        self._workers = [Worker(caller.name, seed, self.known) for caller in callers]
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped; what was begun is brought to its end."""
        async with asyncio.TaskGroup() as group:
            for caller, worker in zip(self.callers, self._workers, strict=True):
                group.create_task(self._work(caller, worker))

    def stop(self) -> None:
        self._stopped.set()

    async def _work(self, caller: Caller, worker: Worker) -> None:
        while not self._stopped.is_set():
            asked = worker.next()
            if asked.key is not None and worker.random.random() < 0.15:
                other = worker.random.choice(self.callers)
                await asyncio.gather(self.ask(caller, asked), self.ask(other, asked))
            else:
                await self.ask(caller, asked)
            await asyncio.sleep(PACE)

    async def ask(self, caller: Caller, asked: Asked) -> Exchange:
        """Send a request, and with a key again until it is known what became of it."""
        for _ in range(SENDS if asked.key is not None else 1):
            exchange = await caller.send(asked)
            if exchange.replies and exchange.replies[0].status in FINAL:
                break
            await asyncio.sleep(PACE)
        self.known.learn(exchange)
        return exchange


@asynccontextmanager
async def callers(
    urls: Sequence[Sequence[str]],
    recorder: Recorder,
    *,
    deadline: float = DEADLINE,
    patience: float = PATIENCE,
) -> AsyncIterator[list[Caller]]:
    """A caller for each of these lists of URLs."""
    async with AsyncExitStack() as stack:
        made = []
        for number, servers in enumerate(urls):
            client = await stack.enter_async_context(connected(*servers))
            caller = Caller(f"c{number}", client, recorder, deadline=deadline, patience=patience)
            await caller.listen()
            made.append(caller)
        yield made
