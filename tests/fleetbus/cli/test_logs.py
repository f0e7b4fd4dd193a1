"""``fleetbus logs``: what an agent said through the kit, forward to its end, or for ever."""

import asyncio
import signal
from uuid import UUID

import pytest
import pytest_asyncio

from fleetbus.cli.logs import PAGE, _harmless
from fleetbus.client import Bus
from tests.fleetbus.cli.program import fleetbus, started

SAID = [f"{number}\n" for number in range(2 * PAGE + 1)]


@pytest_asyncio.fixture
async def otter(bus: Bus) -> UUID:
    """An agent that said more than two pages, and came back to say one thing more."""
    async with bus.agent(name="otter") as agent:
        for line in SAID:
            agent.log(line)
    async with bus.agent(id=agent.id) as again:
        again.log("back again")
    async with bus.agent(name="badger") as other:
        other.log("not mine")
    return agent.id


class TestLogs:
    @pytest.mark.parametrize("spelled", ["otter", "{}", "upper"])
    async def test_all_pages_as_they_were_said(
        self, spelled: str, otter: UUID, nats_url: str
    ) -> None:
        agent = str(otter).upper() if spelled == "upper" else spelled.format(otter)
        ended = await fleetbus("logs", agent, NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "".join(SAID) + "back again\n"

    async def test_one_session(self, otter: UUID, nats_url: str) -> None:
        ended = await fleetbus("logs", str(otter), "--session", "2", NATS_URL=nats_url)
        assert ended.out == "back again\n"

    @pytest.mark.usefixtures("service")
    async def test_an_unknown_name_is_said(self, nats_url: str) -> None:
        ended = await fleetbus("logs", "nobody", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert "there is no agent with name nobody" in ended.err

    async def test_follow_prints_each_chunk_once_as_it_comes(self, bus: Bus, nats_url: str) -> None:
        """One more each time that the last one was printed, over the end of a page."""
        async with bus.agent(name="otter") as agent:
            for number in range(PAGE - 2):
                agent.log(f"{number}\n")
            async with started("logs", "otter", "--follow", NATS_URL=nats_url) as process:
                assert process.stdout is not None
                async with asyncio.timeout(60):
                    for printed in range(PAGE + 3):
                        if printed >= PAGE - 2:
                            agent.log(f"{printed}\n")
                        assert await process.stdout.readline() == f"{printed}\n".encode()
                process.send_signal(signal.SIGINT)
                rest = await asyncio.wait_for(process.stdout.read(), 60)
                assert (await process.wait(), rest) == (130, b"")

    def test_a_terminal_is_not_moved_about(self) -> None:
        assert _harmless("a\x1b[2Jb\tü\n") == "a\ufffd[2Jb\tü\n"
