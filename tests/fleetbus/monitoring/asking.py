"""What a process tells over HTTP, asked for byte by byte and taken apart."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fleetbus.server.monitoring.monitor import Monitor
from fleetbus.server.service import Service

LIMIT = 30.0


@dataclass(frozen=True)
class Got:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Metrics:
    """The samples of a scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of a sample, None where there is none."""
        return self._samples.get((f"fleetbus_{name}", frozenset(labels.items())))

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """The buckets of a histogram by their bounds, in order."""
        found = {}
        for sample in self.families[f"fleetbus_{name}"].samples:
            own = dict(sample.labels)
            bound = own.pop("le", None)
            if bound is not None and own == labels:
                found[float(bound)] = sample.value
        return dict(sorted(found.items()))


async def exchange(port: int, request: bytes) -> bytes:
    """What comes back for these bytes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(LIMIT):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def get(port: int, path: str, method: str = "GET") -> Got:
    answer = await exchange(port, f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return taken_apart(answer)


def taken_apart(answer: bytes) -> Got:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return Got(int(line.split(" ")[1]), headers, body)


async def scrape(port: int) -> Metrics:
    got = await get(port, "/metrics")
    assert got.status == 200
    return Metrics(got.body.decode())


async def scraped_until(port: int, holds: Callable[[Metrics], bool]) -> Metrics:
    """The first scrape of which this holds."""
    async with asyncio.timeout(LIMIT):
        while not holds(found := await scrape(port)):  # noqa: ASYNC110  another process makes it so
            await asyncio.sleep(0.1)
    return found


async def until_ready(port: int, status: int) -> Any:
    """What readiness says once it answers with this status."""
    async with asyncio.timeout(LIMIT):
        while (got := await get(port, "/health/ready")).status != status:  # noqa: ASYNC110  another process makes it so
            await asyncio.sleep(0.1)
    return got.json


@asynccontextmanager
async def watched(service: Service) -> AsyncIterator[int]:
    """The port on which a service is watched."""
    monitor = Monitor()
    monitor.service = service
    await monitor.start("127.0.0.1", 0)
    assert monitor.port is not None
    try:
        yield monitor.port
    finally:
        await monitor.stop()
