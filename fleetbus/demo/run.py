"""``fleetbus demo``: a fleet works off a plan on servers of its own, and is checked for it."""

import asyncio
import signal
import time
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from bus.kit.aio import end
from contracts.planning.phases import PhaseDispatchable, StartPhase
from contracts.planning.tasks import GetTaskQueue
from fleetbus.client import Client, NoAnswer, connect
from fleetbus.demo.children import Children, ServiceFailed
from fleetbus.demo.display import Display, Result, say, show_result
from fleetbus.demo.fleet import Fleet
from fleetbus.demo.recorder import Recorder, read_stored
from fleetbus.demo.verify import verify
from fleetbus.demo.verify_agents import verify_agents
from fleetbus.importing.beads import open_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Plan, PlanUnreadable

REFRESH_SECONDS = 0.1
QUIET_SECONDS = 1.0
"""When there was nothing to do for so long, there is nothing left: phases begin sooner."""

FAILED, INTERRUPTED = 1, 130


def main(plan: Path | None = None) -> int:
    """Run a plan, the one that comes along by default; 0 only if every check was passed."""
    console = Console()
    try:
        return asyncio.run(_until_signalled(console, _open(plan)))
    except PlanUnreadable as error:
        say(console, str(error))
    except ServiceFailed as error:
        say(console, f"The service did not start:\n{error}")
    except NoAnswer as error:
        say(console, f"The service went away: {error}")
    except asyncio.CancelledError:
        say(console, "Interrupted; everything was stopped.")
        return INTERRUPTED
    return FAILED


def _open(path: Path | None) -> Plan:
    if path is not None:
        return open_beads(path)
    with as_file(files("fleetbus").joinpath("demo", "roadmap.jsonl")) as roadmap:
        return open_beads(roadmap)


async def _until_signalled(console: Console, plan: Plan) -> int:
    """Run the demo; a signal ends it in order, and a second one does not end that order."""
    running = asyncio.create_task(_demo(console, plan))
    loop = asyncio.get_running_loop()
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            running.cancel()
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    return await running


async def _demo(console: Console, plan: Plan) -> int:
    async with Children() as children:
        say(console, "Starting PostgreSQL, NATS and the service …")
        url = await children.serve()
        async with connect(url, name="fleetbus-demo") as bus:
            result = await _run(console, bus, plan, children, url)
    show_result(console, result)
    return 0 if result.good else FAILED


async def _run(console: Console, bus: Client, plan: Plan, children: Children, url: str) -> Result:
    recorder = Recorder(bus, durable="demo")
    fleet = Fleet(children, url, recorder, lambda line: say(console, line))
    background = [asyncio.create_task(recorder.run()), asyncio.create_task(_start_phases(bus))]
    try:
        report = await load_plan(bus, plan, source="beads", execution_mode="yolo")
        assert report.initiative_id is not None
        say(console, f"{plan.name}: {len(plan.tasks)} tasks, {len(fleet.names)} agents at {url}")
        began = time.monotonic()
        background.append(working := asyncio.create_task(fleet.work()))
        with Display(console, recorder, fleet.names) as display:
            await _watch(bus, display, fleet, working, background)
            await fleet.dismiss(bus)
        seconds = time.monotonic() - began
        stored = await read_stored(bus, report.initiative_id)
        await recorder.catch_up(stored)
        edges = plan.dependencies + plan.phase_dependencies
        return Result(
            stored=stored,
            done_by=recorder.done_by,
            events=len(recorder.history),
            seconds=seconds,
            checks=[
                *verify(recorder.history, stored, edges),
                *verify_agents(recorder.history, stored, fleet.hurt),
            ],
            failures=tuple(fleet.failures()),
        )
    finally:
        await end(*background)


async def _start_phases(bus: Client) -> None:
    """Start each phase as soon as those before it are completed: what an orchestrator decides."""
    async for event in bus.events(PhaseDispatchable):
        await bus.call(StartPhase(id=event.phase.id))


async def _watch(
    bus: Client,
    display: Display,
    fleet: Fleet,
    working: asyncio.Task[None],
    background: list[asyncio.Task[None]],
) -> None:
    """Show how it goes until nothing is left that could be done, or a worker fails."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS and not fleet.failed:
        for task in background:
            if task.done():
                task.result()
        queue = await bus.call(GetTaskQueue())
        display.update(queue)
        if queue.ready or queue.in_progress or not working.done():
            quiet_since = time.monotonic()
        await asyncio.sleep(REFRESH_SECONDS)
