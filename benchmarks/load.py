"""The load generator: a closed loop of so many requests in flight, in a process of its own.

Run as ``python -m benchmarks.load '{…}'`` it says ``begin`` on stdout when the warm-up is over,
``end`` when the time is, and then, once everything in flight has been answered, one JSON object:
what it counted in between, and what it has cost itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import aiohttp
import uvloop
from nats.aio.client import Client

from benchmarks.workloads import WORKLOADS, Request, Tasks

LAST_ANSWERS = 10.0
"""Seconds that are waited at the end for what is in flight."""

DEADLINE = 60
"""Seconds until the deadline that requests carry."""


@dataclass(frozen=True)
class Spec:
    """What to send, where to, and for how long."""

    transport: str
    url: str
    workload: str
    in_flight: int
    seconds: float
    warmup: float
    prefix: int
    rows: int
    rate: float = 0.0
    """Requests per second at most; 0: as many as there are answers."""


@dataclass
class Counted:
    """What came of it: counts and times within the window after the warm-up."""

    operations: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    mean_ms: float
    cpu_us: float
    first_error: str = ""


class Meter:
    """Counts answers between ``begin`` and the end."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        tasks = Tasks(spec.prefix, spec.rows)
        self._requests: Iterator[Request] = WORKLOADS[spec.workload].requests(tasks)
        self._latencies = array("d")
        self._errors = 0
        self._first_error = ""
        self._began = self._ended = self._cpu = 0.0
        self._sent = 0
        self._started = time.perf_counter()
        self.in_flight = 0
        self.idle = asyncio.Event()

    def start(self) -> None:
        """The warm-up begins now."""
        loop = asyncio.get_running_loop()
        loop.call_later(self._spec.warmup, self._begin)
        loop.call_later(self._spec.warmup + self._spec.seconds, self._end)

    def next(self) -> Request | None:
        """The next request; None when it is time to stop."""
        request = None if self._ended else next(self._requests, None)
        if request is None:
            self._end()
            if self.in_flight == 0:
                self.idle.set()
            return None
        self.in_flight += 1
        self._sent += 1
        return request

    def pause(self) -> float:
        """Seconds until the next request may be sent at the wanted rate."""
        if not self._spec.rate:
            return 0.0
        return self._started + self._sent / self._spec.rate - time.perf_counter()

    def answered(self, latency: float, error: str = "") -> None:
        """Count one answer."""
        self.in_flight -= 1
        if self._began and not self._ended:
            self._latencies.append(latency)
            if error:
                self._errors += 1
                self._first_error = self._first_error or error

    def result(self) -> Counted:
        """What was counted."""
        times = sorted(self._latencies)
        count = len(times)
        return Counted(
            operations=count,
            errors=self._errors,
            seconds=self._ended - self._began,
            p50_ms=times[count // 2] * 1e3 if times else 0.0,
            p99_ms=times[count * 99 // 100] * 1e3 if times else 0.0,
            mean_ms=sum(times) / count * 1e3 if times else 0.0,
            cpu_us=self._cpu / max(count, 1) * 1e6,
            first_error=self._first_error,
        )

    def _begin(self) -> None:
        if not self._ended:
            print("begin", flush=True)
            self._cpu = time.process_time()
            self._began = time.perf_counter()

    def _end(self) -> None:
        if not self._ended:
            self._ended = time.perf_counter()
            self._cpu = time.process_time() - self._cpu
            # Requests that ran out before the warm-up was over leave nothing to count.
            self._began = self._began or self._ended
            print("end", flush=True)


class NatsLoad(Client):
    """nats-py with one inbox for all requests, and the next request sent from within an answer.

    Where nats-py would decode headers and put the message into the queue of a subscription, the
    raw message is looked at: the generator must cost less than what it measures.
    """

    def __init__(self, spec: Spec, meter: Meter) -> None:
        super().__init__()
        self._spec = spec
        self._meter = meter
        self._sent_at = [0.0] * spec.in_flight
        self._inbox = ""
        self._deadline = b""
        self._numbers = iter(range(sys.maxsize))

    async def run(self) -> None:
        """Send and count until it is time to stop."""
        await self.connect(self._spec.url)
        self._inbox = self.new_inbox()
        await self.subscribe(self._inbox + ".*")
        await self.flush()
        self._renew_deadline()
        self._meter.start()
        for slot in range(self._spec.in_flight):
            await self._send(slot)
        async with asyncio.timeout(self._spec.warmup + self._spec.seconds + LAST_ANSWERS):
            await self._meter.idle.wait()
        await self.close()

    async def _process_msg(
        self,
        sid: int,  # noqa: ARG002  the signature is that of nats-py
        subject: bytes,
        reply: bytes,  # noqa: ARG002  the same
        data: bytes,
        headers: bytes,
    ) -> None:
        slot = int(subject[len(self._inbox) + 1 :])
        error = ""
        if (headers and (b"Nats-Service-Error" in headers or b" 503" in headers[:12])) or (
            data.startswith(b'{"error"')
        ):
            error = (data or headers).decode(errors="replace")
        self._meter.answered(time.perf_counter() - self._sent_at[slot], error)
        pause = self._meter.pause()
        if pause > 0:
            loop = asyncio.get_running_loop()
            loop.call_later(pause, lambda: loop.create_task(self._send(slot)))
        else:
            await self._send(slot)

    async def _send(self, slot: int) -> None:
        request = self._meter.next()
        if request is None:
            return
        head = self._deadline
        if request.command:
            key = f"{self._spec.prefix}-{next(self._numbers)}"
            head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b" % (key.encode(), head[10:])
        self._sent_at[slot] = time.perf_counter()
        await self._send_command(
            b"HPUB %b %b.%d %d %d\r\n%b%b\r\n"
            % (
                request.subject.encode(),
                self._inbox.encode(),
                slot,
                len(head),
                len(head) + len(request.body),
                head,
                request.body,
            )
        )
        assert self._flush_queue is not None
        if self._flush_queue.empty():
            await self._flush_pending()

    def _renew_deadline(self) -> None:
        until = int((time.time() + DEADLINE) * 1000)
        self._deadline = b"NATS/1.0\r\nFleet-Deadline: %d\r\n\r\n" % until
        asyncio.get_running_loop().call_later(1.0, self._renew_deadline)


class HttpLoad:
    """aiohttp with as many connections as there are requests in flight."""

    def __init__(self, spec: Spec, meter: Meter) -> None:
        self._spec = spec
        self._meter = meter

    async def run(self) -> None:
        """Send and count until it is time to stop."""
        connector = aiohttp.TCPConnector(limit=self._spec.in_flight)
        async with aiohttp.ClientSession(self._spec.url, connector=connector) as session:
            self._meter.start()
            await asyncio.gather(*(self._loop(session) for _ in range(self._spec.in_flight)))

    async def _loop(self, session: aiohttp.ClientSession) -> None:
        json_type = {"Content-Type": "application/json"}
        while (request := self._meter.next()) is not None:
            post = request.method == "POST"
            started = time.perf_counter()
            async with session.request(
                request.method,
                request.path,
                data=request.body if post else None,
                headers=json_type if post else None,
            ) as response:
                body = await response.read()
            error = "" if response.status < 300 else f"{response.status} {body[:200]!r}"
            self._meter.answered(time.perf_counter() - started, error)
            if (pause := self._meter.pause()) > 0:
                await asyncio.sleep(pause)


async def main(spec: Spec) -> None:
    """Run the load and print what came of it."""
    meter = Meter(spec)
    load = HttpLoad(spec, meter) if spec.transport == "http" else NatsLoad(spec, meter)
    await load.run()
    print(json.dumps(asdict(meter.result())), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Spec(**json.loads(sys.argv[1]))))
