import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from contracts.planning.tasks import TaskQueue
from fleetbus.client import Bus
from fleetbus.demo.children import Children
from fleetbus.demo.display import Display, Result, show_result
from fleetbus.demo.fleet import Fleet
from fleetbus.demo.recorder import Recorder, read_stored
from fleetbus.demo.run import main
from fleetbus.demo.verify import Check
from fleetbus.demo.verify_agents import verify_agents
from fleetbus.demo.worker import work_off
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from tests.fleetbus.demo.story import Story

TIMEOUT = 60

KEPT = Check("kept", 3, ())
BROKEN = Check("broken", 3, ("task [a] did it",))


def issue(ref: str, *blocked_by: str, epic: str | None = None, **fields: object) -> str:
    edges = [{"issue_id": ref, "depends_on_id": other, "type": "blocks"} for other in blocked_by]
    if epic:
        edges.append({"issue_id": ref, "depends_on_id": epic, "type": "parent-child"})
    record = {"id": ref, "title": ref, "status": "open", "issue_type": "task"}
    return json.dumps(record | {"dependencies": edges} | fields)


PLAN = [
    issue("first", issue_type="epic"),
    issue("second", "first", issue_type="epic"),
    issue("a", epic="first"),
    issue("b", "a", epic="first"),
    issue("c", epic="second", issue_type="spike"),
    issue("loose"),
    issue("stuck", status="blocked"),
    issue("held", "stuck"),
]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Two phases, the second after the first, and a task that nobody can finish."""
    path = tmp_path / "tiny.jsonl"
    path.write_text("\n".join(PLAN))
    return path


class Run:
    """The demo in a process of its own, and every process that it ever started."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "fleetbus", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            text=True,
        )
        self.output = ""
        self._family: set[psutil.Process] = set()

    async def until(self, text: str) -> None:
        """Read until this is said."""
        assert self.popen.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while text not in self.output:
                line = await asyncio.to_thread(self.popen.stdout.readline)
                assert line, self.output
                self.output += line
                self.look()

    async def ended(self) -> int:
        """Wait for the end; answers with the exit code."""
        assert self.popen.stdout is not None
        reading = asyncio.create_task(asyncio.to_thread(self.popen.stdout.read))
        async with asyncio.timeout(TIMEOUT):
            while not reading.done():
                self.look()
                await asyncio.sleep(0.05)
        self.output += reading.result()
        return self.popen.wait(TIMEOUT)

    def look(self) -> None:
        try:
            self._family.update(psutil.Process(self.popen.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    @property
    def family(self) -> int:
        return len(self._family)

    @property
    def left(self) -> list[psutil.Process]:
        return [process for process in self._family if process.is_running()]

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for process in self.left:
            process.kill()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.end()


class TestDemo:
    async def test_finishes_what_can_be_finished(self, plan: Path, runs: list[Run]) -> None:
        runs.append(run := Run(str(plan)))
        code = await run.ended()
        assert code == 0, run.output
        lines = {" ".join(line.split()) for line in run.output.splitlines()}
        assert "tasks 4 completed, 1 blocked, 1 pending" in lines
        assert "phases 2 completed" in lines
        assert "initiative 1 active" in lines
        assert "worker-3 gets a SIGKILL" in run.output
        assert "worker-4 gets a SIGSTOP" in run.output
        assert "worker-3 is started again, as the same agent" in lines
        assert "worker-4 is woken up, learns that it is no longer the agent, and ends" in lines
        assert "✓ every agent that was killed or frozen has one crash event (2 checked)" in lines
        assert "✓ every agent has ended, and the service knows it (4 checked)" in lines
        assert "✗" not in run.output
        assert run.family > 6
        assert run.left == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_ends_everything(self, number: signal.Signals, runs: list[Run]) -> None:
        runs.append(run := Run())
        await run.until("in progress")
        run.popen.send_signal(number)
        run.popen.send_signal(signal.SIGINT)
        assert await run.ended() == 130
        assert run.output.endswith("Interrupted; everything was stopped.\n")
        assert run.family > 6
        assert run.left == []

    async def test_a_service_that_does_not_start_is_said(self, runs: list[Run]) -> None:
        runs.append(run := Run(FLEETBUS_POOL_WRITE="0"))
        assert await run.ended() == 1
        assert "The service did not start:" in run.output
        assert "pool_write" in run.output.lower()
        assert run.left == []

    def test_a_file_without_a_plan_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        empty = tmp_path / "empty.jsonl"
        empty.touch()
        assert main(empty) == 1
        assert f"{empty} is empty" in capsys.readouterr().out


class TestFleet:
    async def test_a_crash_that_is_never_told_is_found(
        self, bus: Bus, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here nobody looks after leases or connections."""
        monkeypatch.setattr("fleetbus.demo.fleet.PATIENCE_SECONDS", 2.0)
        monkeypatch.setattr("fleetbus.demo.fleet.HOLD_SECONDS", 0.1)
        recorder = Recorder(bus, durable="recorder")
        recording = asyncio.create_task(recorder.run())
        said: list[str] = []
        async with Children() as children:
            fleet = Fleet(children, nats_url, recorder, said.append)
            await asyncio.wait_for(fleet.work(), TIMEOUT)
            checks = verify_agents(recorder.history, [], fleet.hurt)
        recording.cancel()
        await asyncio.wait([recording])
        assert {f"there is no event of a crash of worker-{n}" for n in (3, 4)} <= set(said)
        assert len(checks[0].violations) == 2


class TestVerdict:
    def result(self, *checks: Check, failures: tuple[str, ...] = ()) -> Result:
        return Result([], {"worker-1": 3}, 7, 1.5, list(checks), failures)

    def test_is_good_if_all_was_kept(self) -> None:
        assert self.result(KEPT).good

    def test_is_bad_if_one_promise_was_not(self) -> None:
        assert not self.result(KEPT, BROKEN).good

    def test_is_bad_if_a_worker_failed(self) -> None:
        assert not self.result(KEPT, failures=("worker-1 ended with status 1",)).good

    def test_is_shown_with_what_is_wrong(self) -> None:
        console = Console(width=100, record=True, file=StringIO())
        show_result(console, self.result(KEPT, BROKEN, failures=("worker-1 died",)))
        shown = console.export_text().splitlines()
        assert "✓ kept (3 checked)" in shown
        assert shown[shown.index("✗ broken (3 checked)") + 1] == "    task [a] did it"
        assert shown[-2:] == ["✗ worker-1 died", "This is not right."]


class TestWatching:
    async def test_a_worker_and_its_history(self, bus: Bus) -> None:
        recorder = Recorder(bus, durable="recorder")
        recording = asyncio.create_task(recorder.run())
        report = await load_plan(bus, read_beads([issue("a"), issue("b", "a")]))
        assert report.initiative_id is not None
        async with bus.agent(name="me") as agent:
            assert await work_off(agent, work=(0, 0), idle_seconds=1) == 2
        await recorder.catch_up(await read_stored(bus, report.initiative_id))
        recording.cancel()
        await asyncio.wait([recording])
        assert [told.type for told in recorder.history if told.type.startswith("task.")] == [
            *("task.created", "task.created", "task.claimed", "task.completed"),
            *("task.ready", "task.claimed", "task.completed"),
        ]
        assert (recorder.done_by, recorder.in_hand) == ({"me": 2}, {})

    def test_the_picture_shows_who_has_what(self) -> None:
        recorder = Recorder.__new__(Recorder)
        recorder.history, recorder.done_by = Story().history, {"worker-1": 2}
        recorder.in_hand = {"id": ("worker-1", "Mend the [roof]")}
        queue = TaskQueue(ready=1, waiting=2, in_progress=1, blocked=0, completed=2)
        console = Console(width=100, force_terminal=True, record=True, file=StringIO())
        with Display(console, recorder, ["worker-1", "worker-2"]) as display:
            display.update(queue)
        shown = console.export_text()
        assert "1 ready · 2 waiting · 1 in progress · 0 blocked · 2 completed" in shown
        assert "Mend the [roof]" in shown
        assert "idle" in shown
