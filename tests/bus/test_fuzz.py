"""Two thousand malformed requests: each is answered rightly and soon, and nothing stays behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from nats.errors import NoRespondersError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import OPERATIONS
from bus.contract.schemas import schema_of
from fleetbus import domain
from tests.bus.asking import Asker, Got, add_tasks, asking, got
from tests.bus.fuzzing import Fuzzer
from tests.fleetbus.processes.running import Running, running

REQUESTS = 2_000
SEED = 20_260_131
TOGETHER = 4

RIGHT = {200, 400, 404, 409, 413, 422}
SOON = 1.0
NO_ANSWER = Got(b"{}", {"Nats-Service-Error-Code": "0"})
FLAT = 12 * 1024 * 1024

INITIATIVE = "0199c0de-0000-7000-8000-0000000000a1"
PHASE = "0199c0de-0000-7000-8000-0000000000a2"
PROJECT = "0199c0de-0000-7000-8000-0000000000a3"
PLAN = (
    f"INSERT INTO planning.projects (id, name, url) VALUES ('{PROJECT}', 'p', 'https://p')",
    f"INSERT INTO planning.initiatives (id, name) VALUES ('{INITIATIVE}', 'i')",
    f"""INSERT INTO planning.phases (id, initiative_id, name, position, status)
        VALUES ('{PHASE}', '{INITIATIVE}', 'f', 1, 'in_progress')""",
)

domain.registry()
SCHEMAS = {
    subject: schema_of(operation)
    for subject, operation in sorted(OPERATIONS.items())
    if ".probe" not in subject
}


@pytest.fixture
async def serve(database_url: str, nats_url: str) -> AsyncIterator[Running]:
    urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url, "FLEETBUS_LOG_LEVEL": "WARNING"}
    async with running("serve", **urls) as serve:
        async with asking(nats_url) as ask:
            await _answered(ask)
        yield serve


async def _answered(ask: Asker) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await ask("db.meta.operations")
            except NoRespondersError:
                await asyncio.sleep(0.05)
            else:
                return


async def send(ask: Asker, subject: str, body: bytes, headers: dict[str, str]) -> tuple[Got, float]:
    started = time.monotonic()
    try:
        message = await ask.client.request(subject, body, timeout=10, headers=headers or None)
    except TimeoutError:
        return NO_ANSWER, time.monotonic() - started
    return got(message), time.monotonic() - started


async def bombard(ask: Asker, ids: list[str]) -> list[str]:
    """A round of requests; returns what was wrong with the answers."""
    fuzzer = Fuzzer(SEED, ids)
    subjects = list(SCHEMAS)
    wrong = []
    for start in range(0, REQUESTS, TOGETHER):
        chosen = [subjects[n % len(subjects)] for n in range(start, start + TOGETHER)]
        requests = [(subject, *fuzzer.request(SCHEMAS[subject])) for subject in chosen]
        answers = await asyncio.gather(*(send(ask, *request) for request in requests))
        for (subject, body, headers), (answer, took) in zip(requests, answers, strict=True):
            # To wait is what one operation is for.
            if answer.status not in RIGHT or (took > SOON and subject != "db.events.wait"):
                shown = f"{body[:120]!r} ({len(body)} bytes) {headers}"
                wrong.append(f"{subject} {shown}: {answer.status} {answer.type} {took:.2f} s")
    return wrong


class TestMalformedRequests:
    @pytest.mark.alone
    async def test_each_is_answered_rightly_and_soon_and_memory_stays_flat(
        self, serve: Running, db: AsyncConnection, nats_url: str
    ) -> None:
        for statement in PLAN:
            await db.execute(text(statement))
        tasks = [
            *await add_tasks(db, 10, initiative_id=INITIATIVE, phase_id=PHASE),
            *await add_tasks(db, 10, phase_id=PHASE, status="pending", attempt=0),
        ]
        unknown = "0199c0de-0000-7000-8000-0000000000ff"
        ids = [*map(str, tasks), INITIATIVE, PHASE, PROJECT, unknown]
        process = psutil.Process(serve.process.pid)

        async with asking(nats_url) as ask:
            first = await bombard(ask, ids)
            before = process.memory_info().rss
            second = await bombard(ask, ids)
            grown = process.memory_info().rss - before
            unreadable = await _unreadable(ask, db)

        assert first + second == [], serve.output[-5_000:]
        assert grown < FLAT
        assert unreadable == []
        assert "Traceback" not in serve.output


async def _unreadable(ask: Asker, db: AsyncConnection) -> list[Any]:
    """Rows that were stored and cannot be answered with."""
    found = []
    for noun in ("projects", "initiatives", "phases", "tasks"):
        ids = (await db.execute(text(f"SELECT id FROM planning.{noun}"))).scalars().all()
        for id_ in ids:
            answer = await ask(f"db.{noun}.get", {"id": str(id_)})
            if answer.status != 200:
                found.append((noun, str(id_), answer.status, answer.type))
    return found
