"""``fleetbus logs``: a log forward to its end, or for ever."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from fleetbus.cli.logs import PAGE, _harmless
from fleetbus.flushing import flush
from fleetbus.ids import uuid7
from tests.cli.program import fleetbus, started

OTTER = str(uuid7())


class Log:
    """One log behind the two operations that the command asks; it may grow."""

    def __init__(self) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.looks = 0

    def say(self, content: str, session: int = 1) -> None:
        self.chunks.append({"id": str(uuid7()), "session_number": session, "content": content})

    async def serve(self, client: Client) -> None:
        await client.subscribe("db.agents.find", cb=self._find)
        await client.subscribe("db.log_chunks.list", cb=self._list)
        await flush(client)

    async def _find(self, message: Msg) -> None:
        if json.loads(message.data) == {"name": "otter"}:
            await message.respond(json.dumps({"id": OTTER}).encode())
            return
        headers = {"Nats-Service-Error-Code": "404", "Nats-Service-Error": "no"}
        body = json.dumps({"type": "agent_not_found", "detail": "there is no such agent"}).encode()
        await message._client.publish(message.reply, body, headers=headers)

    async def _list(self, message: Msg) -> None:
        self.looks += 1
        asked = json.loads(message.data)
        session = asked.get("session_number")
        mine = [one for one in self.chunks if session in {None, one["session_number"]}]
        start, limit = int(asked.get("cursor", 0)), asked["limit"]
        rest = len(mine) > start + limit
        page = {
            "items": mine[start : start + limit] if asked["agent_id"] == OTTER else [],
            "next_cursor": str(start + limit) if rest else None,
        }
        await message.respond(json.dumps(page).encode())


@pytest_asyncio.fixture
async def log(nats_url: str) -> AsyncIterator[Log]:
    client = await nats.connect(nats_url)
    log = Log()
    await log.serve(client)
    yield log
    await client.close()


class TestLogs:
    @pytest.mark.parametrize("agent", ["otter", OTTER, OTTER.upper()])
    async def test_all_pages_as_they_were_said(self, agent: str, log: Log, nats_url: str) -> None:
        for number in range(2 * PAGE + 1):
            log.say(f"{number}, " if number % 2 else f"{number}\n")
        ended = await fleetbus("logs", agent, NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "".join(chunk["content"] for chunk in log.chunks)

    async def test_one_session(self, log: Log, nats_url: str) -> None:
        log.say("first\n", session=1)
        log.say("second\n", session=2)
        ended = await fleetbus("logs", "otter", "--session", "2", NATS_URL=nats_url)
        assert ended.out == "second\n"

    async def test_an_unknown_name_is_said(self, log: Log, nats_url: str) -> None:
        ended = await fleetbus("logs", "badger", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert "there is no such agent" in ended.err

    async def test_follow_prints_each_chunk_once_as_it_comes(self, log: Log, nats_url: str) -> None:
        for number in range(PAGE - 2):
            log.say(f"{number}\n")
        async with started("logs", "otter", "--follow", NATS_URL=nats_url) as process:
            assert process.stdout is not None
            printed = 0
            async with asyncio.timeout(60):
                while printed < PAGE + 5:
                    assert await process.stdout.readline() == f"{printed}\n".encode()
                    printed += 1
                    if printed == len(log.chunks) and printed < PAGE + 5:
                        looks = log.looks
                        while log.looks < looks + 2:  # noqa: ASYNC110  two looks, not one
                            await asyncio.sleep(0.02)
                        log.say(f"{printed}\n")
            process.send_signal(signal.SIGINT)
            rest = await asyncio.wait_for(process.stdout.read(), 60)
            assert (await process.wait(), rest) == (130, b"")

    def test_a_terminal_is_not_moved_about(self) -> None:
        assert _harmless("a\x1b[2Jb\tü\n") == "a\ufffd[2Jb\tü\n"
