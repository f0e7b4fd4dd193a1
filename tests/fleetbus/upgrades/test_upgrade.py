"""What a version before left, under ``fleetbus up`` of today."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleetbus.server import migrate
from tests.fleetbus.cli.program import fleetbus
from tests.fleetbus.processes.running import Running, running
from tests.fleetbus.upgrades.kept import revisions, unpack
from tests.fleetbus.upgrades.scenario import AHEAD
from tests.fleetbus.upgrades.speaking import Speaker, speaking
from tests.servers import server_directory

# A kept directory may be older than anything is kept for.
FOR_EVER = {
    "FLEETBUS_IDEMPOTENCY_RETENTION": str(10 * 365 * 86_400),
    "FLEETBUS_OUTBOX_RETENTION_DAYS": "36525",
    "FLEETBUS_HISTORY_RETENTION_DAYS": "36525",
    "FLEETBUS_LOG_RETENTION_DAYS": "36525",
}

MOVED = {"lease_expires_at", "timeout_at"}
"""Leases and timeouts that were running: nobody could be heard while nothing ran, so they move."""

CORRECTED = re.compile(rf"last_fetched_at was '{AHEAD}', is '2026-")
"""Since 0010 no clock that is ahead reports a time that is still to come."""

ADDED = {"lease_seconds", "shortened", "time_zone"}
"""Fields of answers that are there since."""


@dataclass
class Upgraded:
    """A directory of the version before, served by today's."""

    revision: str
    up: Running
    speaker: Speaker
    directory: Path
    recorded: dict[str, Any]
    answers: list[Any]
    """What today's version answered to the recorded questions, before anything else was asked."""
    ready: list[Any]
    stream: list[dict[str, Any]]
    """What the stream held then."""

    async def fleetbus(self, *arguments: str) -> tuple[int, str]:
        ended = await fleetbus(*arguments, cwd=self.directory)
        return ended.code, ended.out + ended.err


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Running, Speaker]]:
    data_dir = str(directory / ".fleetbus")
    async with running("up", "--data-dir", data_dir, **FOR_EVER) as up:
        ready = await up.said("ready nats://")
        async with speaking(ready.removeprefix("ready ").strip()) as speaker:
            yield up, speaker


@pytest_asyncio.fixture(scope="module", params=revisions())
async def upgraded(request: pytest.FixtureRequest) -> AsyncIterator[Upgraded]:
    with server_directory() as directory:
        recorded = unpack(request.param, directory, directory / ".fleetbus")
        async with served(directory) as (up, speaker):
            answers = [
                await speaker.ask(one["subject"], **one["request"]) for one in recorded["answers"]
            ]
            ready = (await speaker.ask("db.tasks.list", ready=True))["items"]
            stream = await speaker.stream()
            yield Upgraded(request.param, up, speaker, directory, recorded, answers, ready, stream)


def differences(before: Any, now: Any, at: str = "") -> list[str]:
    """Where an answer of today is not what it was."""
    if isinstance(before, dict) and isinstance(now, dict):
        added = now.keys() - before.keys() - ADDED
        found = [f"{at}.{name} is new" for name in added]
        for name, value in before.items():
            if name not in MOVED or value is None:
                found += differences(value, now.get(name, "missing"), f"{at}.{name}")
        return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [one for n, pair in pairs for one in differences(*pair, f"{at}[{n}]")]
    return [] if before == now else [f"{at} was {before!r}, is {now!r}"]


class TestUpgrade:
    async def test_everything_reads_as_before(self, upgraded: Upgraded) -> None:
        pairs = zip(upgraded.recorded["answers"], upgraded.answers, strict=True)
        found = [
            one
            for before, now in pairs
            for one in differences(before["reply"], now, before["subject"])
        ]
        corrected = [one for one in found if CORRECTED.search(one)]
        assert found == corrected
        assert len(corrected) == (upgraded.revision < "0010")

    async def test_what_is_ready_is_known(self, upgraded: Upgraded) -> None:
        """Also where the version did not keep it, and looked at less of what is above a task."""
        assert [task["name"] for task in upgraded.ready] == ["Decide", "A part of it"]

    async def test_old_events_are_there_once_and_no_others(self, upgraded: Upgraded) -> None:
        assert upgraded.stream == upgraded.recorded["stream"]

    async def test_it_says_what_it_found(self, upgraded: Upgraded) -> None:
        line = await upgraded.up.said("upgrading the data in ")
        assert f"from migration {upgraded.revision} to {migrate.head()}: " in line
        assert str(upgraded.directory / ".fleetbus") in line

    async def test_what_was_sent_is_answered_the_same(self, upgraded: Upgraded) -> None:
        for sent in upgraded.recorded["kept"]:
            answer = await upgraded.speaker.send(sent["subject"], sent["body"], sent["key"])
            assert answer.text == sent["reply"]
            assert answer.headers["Fleet-Replayed"] == "true"
        assert await upgraded.speaker.stream() == upgraded.stream

    async def test_credentials_are_revealed(self, upgraded: Upgraded) -> None:
        listed = await upgraded.speaker.ask("db.accounts.list")
        [account] = [one for one in listed["items"] if one["has_credentials"]]
        found = await upgraded.speaker.ask("db.accounts.reveal_credentials", id=account["id"])
        assert found["credentials"] == upgraded.recorded["credentials"]

    async def test_what_was_claimed_is_completed(self, upgraded: Upgraded) -> None:
        speaker, named = upgraded.speaker, upgraded.recorded["named"]
        beat = await speaker.ask("db.agents.heartbeat", id=named["agent"], incarnation=1)
        assert beat["lease_expires_at"] is not None
        for name in ("held", "loose"):
            task = await speaker.ask("db.tasks.get", id=named[name])
            await speaker.ask("db.tasks.renew", id=task["id"], attempt=task["attempt"])
            done = {"id": task["id"], "attempt": task["attempt"], "summary": "after the upgrade"}
            assert (await speaker.ask("db.tasks.complete", **done))["status"] == "completed"

        ready = await speaker.ask("db.tasks.claim", agent_id="next", phase_id=None, limit=10)
        assert ready["tasks"]

    async def test_new_events_follow(self, upgraded: Upgraded) -> None:
        speaker, before = upgraded.speaker, len(upgraded.stream)
        answer = await speaker.send("db.tasks.create", '{"name": "new"}')
        position = int(answer.headers["Fleet-Position"])
        await speaker.ask("db.events.wait", position=position, timeout_ms=5000)

        stream = await speaker.stream()
        assert stream[:before] == upgraded.stream
        assert stream[-1]["data"]["task"]["id"] == answer.value["id"]
        positions = [int(event["headers"]["Fleet-Position"]) for event in stream]
        assert positions == sorted(set(positions))
        ids = [event["headers"]["ce-id"] for event in stream]
        assert len(ids) == len(set(ids))

    async def test_nothing_is_missing(self, upgraded: Upgraded) -> None:
        code, said = await upgraded.fleetbus("events", "verify")
        assert code == 0, said

    async def test_doctor_is_content(self, upgraded: Upgraded) -> None:
        """Once each job has run anew, and stream and outbox have been compared."""
        async with asyncio.timeout(30):
            while True:
                code, said = await upgraded.fleetbus("doctor")
                if code == 0 and "0 were missing" in said:
                    break
                await asyncio.sleep(0.2)
        assert "1 credentials, 0 to be encrypted again" in said
