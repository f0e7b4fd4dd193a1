"""``python -m benchmarks``: the comparison, and further benchmarks as commands of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import (
    growth,
    heartbeats,
    idle,
    latency,
    picture,
    relaying,
    report,
    searches,
    signins,
    soak,
    start,
    wire,
)
from benchmarks.compare import IN_FLIGHT, NAMES, Comparison, Plan
from benchmarks.contenders import ACCOUNTS
from benchmarks.results import FILE, Results
from benchmarks.runner import Window
from benchmarks.servers import SETTINGS, running
from benchmarks.workloads import WORKLOADS

THOROUGH_ROUNDS = 5
THOROUGH_SECONDS = 3.0

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(width=150)


@dataclass(frozen=True)
class Common:
    """What every benchmark can be told."""

    durable: bool
    output: Path


_common = Common(durable=True, output=FILE)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    only: Annotated[str, typer.Option(help="Contenders, with commas.")] = ",".join(NAMES),
    workloads: Annotated[str, typer.Option(help="Workloads, with commas.")] = ",".join(WORKLOADS),
    in_flight: Annotated[str, typer.Option(help="Requests in flight, with commas.")] = ",".join(
        str(number) for number in IN_FLIGHT
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all contenders.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per measurement.")] = 1.5,
    quick: Annotated[bool, typer.Option(help="One short round at 1 and 64 in flight.")] = False,
    thorough: Annotated[bool, typer.Option(help="Five rounds, longer measurements.")] = False,
    plot: Annotated[bool, typer.Option(help="Draw docs/benchmarks.svg.")] = False,
    durable: Annotated[bool, typer.Option(help="Wait for the disk at every commit.")] = True,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = FILE,
) -> None:
    """Compare fleetbus with what a user would otherwise write."""
    global _common  # noqa: PLW0603  what the commands below are told
    _common = Common(durable, output)
    if context.invoked_subcommand is not None:
        return
    plan = Plan(
        contenders=_chosen(only, NAMES),
        workloads=_chosen(workloads, WORKLOADS),
        in_flight=(1, 64) if quick else [int(number) for number in in_flight.split(",")],
        rounds=1 if quick else THOROUGH_ROUNDS if thorough else rounds,
        window=Window(THOROUGH_SECONDS if thorough else seconds),
    )
    asyncio.run(_compare(plan, draw=plot))


@app.command("growth")
def run_growth(
    rows: Annotated[str, typer.Option(help="Tasks, with commas.")] = "1000,100000,1000000",
    processes: Annotated[str, typer.Option(help="Processes, with commas.")] = "1,2,4",
    seconds: float = 4.0,
) -> None:
    """Latency and throughput as the table grows, and with more processes."""
    sizes = [int(number) for number in rows.split(",")]
    counts = [int(number) for number in processes.split(",")]
    _run("growth", growth.run(console, sizes, counts, Window(seconds), durable=_common.durable))


@app.command("latency")
def run_latency(seconds: float = 10.0) -> None:
    """From commit to event, at half of the highest load."""
    _run("latency", latency.run(console, seconds, durable=_common.durable))


@app.command("relay")
def run_relay(events: int = 200_000) -> None:
    """How fast the relay drains a backlog."""
    _run("relay", relaying.run(console, events, durable=_common.durable))


@app.command("wire")
def run_wire(rounds: int = 5, seconds: float = 3.0) -> None:
    """What a request costs between nats-py and the database."""
    _run("wire", wire.run(console, rounds, Window(seconds)))


@app.command("heartbeats")
def run_heartbeats(
    agents: Annotated[int, typer.Option(min=1, help="Agents that live.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds that count.")] = 40.0,
    keys: Annotated[bool, typer.Option(help="Give each heartbeat a key of its own.")] = False,
) -> None:
    """What many living agents cost a handler process; none may be taken for crashed."""
    work = heartbeats.run(console, agents, seconds, keys=keys, durable=_common.durable)
    _run("heartbeats", work)


@app.command("idle")
def run_idle(
    claimers: Annotated[int, typer.Option(min=1, help="Who asks for work and finds none.")] = 200,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks that wait.")] = 300_000,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds between two claims.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds that count.")] = 10.0,
) -> None:
    """What idle claimers cost, and everybody else beside them."""
    work = idle.run(console, claimers, tasks, every, seconds, durable=_common.durable)
    _run("idle", work)


@app.command("searches")
def run_searches(
    tasks: Annotated[int, typer.Option(min=1000, help="Tasks that are searched.")] = 1_000_000,
    in_flight: Annotated[int, typer.Option(min=1, help="Searches at once.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds that count.")] = 10.0,
) -> None:
    """What a get by id notices of searches over all tasks."""
    work = searches.run(console, tasks, in_flight, seconds, durable=_common.durable)
    _run("searches", work)


@app.command("signins")
def run_signins(
    agents: Annotated[int, typer.Option(min=1, help="Agents that live.")] = 10_000,
    callers: Annotated[int, typer.Option(min=1, help="Who sign in, one after the other.")] = 64,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds that count.")] = 20.0,
) -> None:
    """What heartbeats notice of passwords that are hashed at full speed; none may be late."""
    work = signins.run(console, agents, callers, seconds, durable=_common.durable)
    _run("signins", work)


@app.command("soak")
def run_soak(minutes: float = 5.0, processes: int = 2) -> None:
    """Memory of each process under a long load."""
    _run("soak", soak.run(console, minutes, processes, durable=_common.durable))


@app.command("start")
def run_start(
    rounds: Annotated[int, typer.Option(min=1, help="Starts of each that count.")] = 7,
) -> None:
    """What it costs to start: commands, the client, a handler process."""
    _run("start", start.run(console, rounds, durable=_common.durable))


async def _compare(plan: Plan, *, draw: bool) -> None:
    async with running(ACCOUNTS, durable=_common.durable) as servers:
        comparison = Comparison(servers, plan, console)
        await comparison.run()
        versions = await servers.versions()
    rows = report.summarize(comparison.measurements)
    report.show(rows, console)
    section = report.comparison(
        comparison.measurements,
        rounds=plan.rounds,
        seconds=plan.window.seconds,
        durable=_common.durable,
        relay="off, for all",
        postgres_settings=SETTINGS,
        servers=versions,
        skipped=comparison.skipped,
    )
    report.write(_common.output, "comparison", section)
    if draw:
        picture.draw(Results.read(_common.output))


def _run(section: str, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
    report.write(_common.output, section, asyncio.run(work))


def _chosen(names: str, known: Any) -> list[str]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    app()
