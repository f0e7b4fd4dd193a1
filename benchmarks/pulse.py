"""Agents that do nothing but live, all in one process, over plain nats-py.

``python -m benchmarks.pulse '{…}'`` registers them, lets each send its heartbeats, evenly spread,
and says ``begin`` and ``end`` around the time that counts; then what it counted, as JSON.
"""

import asyncio
import json
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from uuid import UUID

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.ids import uuid7

REGISTERING = 128
"""Registrations in flight, a transaction each: many more than there are connections."""

TICK = 0.005
"""Seconds between two looks at whose turn it is."""

AFTER_REFUSAL = 0.2
"""Seconds until a heartbeat that was refused for the load is sent again; its time goes on."""

LATE = 1.0
"""Seconds after which the answer to a heartbeat is late; an agent is missed after several beats."""

LAST_ANSWERS = 5.0
"""Seconds that are waited at the end for what is under way."""


@dataclass(frozen=True)
class Spec:
    """How many agents, how they beat, and for how long that is counted."""

    url: str
    agents: int
    interval: int
    seconds: float
    warmup: float
    keys: bool
    """Whether each heartbeat carries a key of its own."""


@dataclass(frozen=True)
class Beats:
    """What came of it within the time that counts."""

    registered_per_second: float
    sent: int
    unanswered: int
    refused: dict[str, int]
    """By what was said, from the first registration on."""
    p50_ms: float
    p99_ms: float
    worst_ms: float
    late: int
    """Answered after a second, or not at all."""
    cpu_share: float
    """Of one core, of this process."""


class Pulse:
    """The heartbeats of many agents on one connection."""

    def __init__(self, client: Client, spec: Spec) -> None:
        self._client = client
        self._spec = spec
        self._inbox = client.new_inbox()
        self._agents: list[tuple[UUID, bytes]] = []
        self._sent = [0.0] * spec.agents
        self._latencies = array("d")
        self._counts = False
        self._sending: set[asyncio.Task[None]] = set()
        self._beats = 0
        self._refused: Counter[str] = Counter()

    async def register(self) -> float:
        """Register all agents; returns how many in a second."""
        began = time.perf_counter()
        places = asyncio.Semaphore(REGISTERING)

        async def register(number: int) -> None:
            agent = uuid7()
            request = {
                "id": str(agent),
                "name": f"agent {number}",
                "heartbeat_interval_s": self._spec.interval,
            }
            async with places:
                reply = await self._client.request(
                    "db.agents.register", json.dumps(request).encode(), timeout=60
                )
            assert "Nats-Service-Error-Code" not in (reply.headers or {}), reply.data
            beat = {"id": str(agent), "incarnation": 1}
            self._agents.append((agent, json.dumps(beat).encode()))

        await asyncio.gather(*(register(number) for number in range(self._spec.agents)))
        return self._spec.agents / (time.perf_counter() - began)

    async def beat(self) -> None:
        """Each agent once per interval, for ever; agents beat from their registration on."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)
        turn, began = 0, time.perf_counter()
        while True:
            due = (time.perf_counter() - began) * self._spec.agents / self._spec.interval
            while turn < due:
                await self._beat_one(turn % self._spec.agents)
                turn += 1
            await asyncio.sleep(TICK)

    async def _beat_one(self, number: int) -> None:
        if number >= len(self._agents):
            return
        self._sent[number] = time.perf_counter()
        self._beats += self._counts
        await self._send(number)

    async def _send(self, number: int) -> None:
        headers = {"Nats-Msg-Id": str(uuid7())} if self._spec.keys else None
        await self._client.publish(
            "db.agents.heartbeat",
            self._agents[number][1],
            reply=f"{self._inbox}.{number}",
            headers=headers,
        )

    def _send_again(self, number: int) -> None:
        sending = asyncio.create_task(self._send(number))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _answered(self, message: Msg) -> None:
        number = int(message.subject.rpartition(".")[2])
        if message.headers and "Nats-Service-Error-Code" in message.headers:
            problem = json.loads(message.data)
            self._refused[problem["type"]] += 1
            if problem["retryable"]:
                asyncio.get_running_loop().call_later(AFTER_REFUSAL, self._send_again, number)
        elif self._counts:
            self._latencies.append(time.perf_counter() - self._sent[number])

    async def count(self, registered_per_second: float) -> Beats:
        """Count for the time that was given."""
        await asyncio.sleep(self._spec.warmup)
        print("begin", flush=True)
        self._counts, cpu = True, time.process_time()
        await asyncio.sleep(self._spec.seconds)
        print("end", flush=True)
        sent, share = self._beats, (time.process_time() - cpu) / self._spec.seconds
        answered = await self._last_answers(sent)
        times = sorted(self._latencies)
        return Beats(
            registered_per_second=registered_per_second,
            sent=sent,
            unanswered=sent - answered,
            refused=dict(self._refused),
            p50_ms=times[len(times) // 2] * 1e3,
            p99_ms=times[len(times) * 99 // 100] * 1e3,
            worst_ms=times[-1] * 1e3,
            late=sent - answered + sum(seconds > LATE for seconds in times),
            cpu_share=share,
        )

    async def _last_answers(self, sent: int) -> int:
        """Wait until as many were answered as were sent, within reason."""
        try:
            async with asyncio.timeout(LAST_ANSWERS):
                while len(self._latencies) < sent:  # noqa: ASYNC110  the subscription fills it
                    await asyncio.sleep(TICK)
        except TimeoutError:
            return len(self._latencies)
        return sent


async def main(spec: Spec) -> None:
    """Register, beat, count, and say what was counted."""
    client = await nats.connect(spec.url)
    pulse = Pulse(client, spec)
    beating = asyncio.create_task(pulse.beat())
    counted = await pulse.count(await pulse.register())
    beating.cancel()
    print(json.dumps(asdict(counted)), flush=True)
    await client.close()


if __name__ == "__main__":
    uvloop.run(main(Spec(**json.loads(sys.argv[1]))))
