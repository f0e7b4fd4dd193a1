"""A picture of a fleet: what a snapshot holds, laid out for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetbus.cli.terminal import printable
from fleetbus.cli.top.collect import Operation, Snapshot

QUEUE = ("ready", "waiting", "in_progress", "blocked", "completed")

COLOURS = {
    "running": "green",
    "waiting_for_input": "yellow",
    "idle": "dim",
    "crashed": "red",
    "suspected": "magenta",
}

OPERATIONS_SHOWN = 12
AGENTS_SHOWN = 30


def picture(now: Snapshot, before: Snapshot | None = None) -> RenderableType:
    """Everything of a snapshot; rates are taken since the one before."""
    return Group(
        _summary(now),
        Text(),
        _agents(now),
        Text(),
        _operations(now, before),
        Text(),
        *(Text(printable(line), style="dim", no_wrap=True) for line in now.latest),
        *(Text(printable(problem), style="red") for problem in now.problems),
    )


def _summary(now: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("processes", _processes(now))
    grid.add_row("queue", _queue(now))
    grid.add_row("relay", _relay(now))
    grid.add_row("events", f"{now.events_per_second:.1f}/s")
    return grid


def _processes(now: Snapshot) -> str:
    in_flight = sum(process["in_flight"] for process in now.processes)
    shed = sum(process["shed"] for process in now.processes)
    return f"{len(now.processes)}, {in_flight} requests in flight, {shed} shed"


def _queue(now: Snapshot) -> str:
    if now.queue is None:
        return "…"
    return ", ".join(f"{now.queue[state]} {state.replace('_', ' ')}" for state in QUEUE)


def _relay(now: Snapshot) -> str:
    leaders = [p["relay"] for p in now.processes if p["relay"] and p["relay"]["leader"]]
    outbox = next((p["outbox"] for p in now.processes if p["outbox"]), None)
    if outbox is None:
        return "not known"
    lag = f"{outbox['backlog']} events wait, the oldest for {outbox['oldest_unpublished']:.1f} s"
    active = "active" if leaders else "NOT ACTIVE"
    return f"{active}, position {outbox['published_position']}, {lag}"


def _agents(now: Snapshot) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("agent", "status", "heartbeat", "task", "progress"):
        table.add_column(name, no_wrap=True, ratio=3 if name in {"task", "progress"} else None)
    agents = now.agents or ()
    for agent in agents[:AGENTS_SHOWN]:
        status = "suspected" if agent["suspected_at"] else agent["status"]
        table.add_row(
            Text(printable(agent["name"])),
            Text(status.replace("_", " "), style=COLOURS.get(status, "")),
            Text(_ago(agent["last_heartbeat_at"])),
            Text(printable(now.tasks.get(agent["task_id"], ""))),
            Text(printable(_progress(agent["progress"]))),
        )
    if len(agents) > AGENTS_SHOWN:
        table.add_row(Text(f"and {len(agents) - AGENTS_SHOWN} more", style="dim"))
    if not agents:
        table.add_row(Text("no agents" if now.agents is not None else "…", style="dim"))
    return table


def _operations(now: Snapshot, before: Snapshot | None) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation", no_wrap=True)
    for name in ("per second", "requests", "errors", "p99 ms"):
        table.add_column(name, justify="right")
    known = {operation.subject: operation for operation in before.operations} if before else {}
    seconds = now.at - before.at if before else 0.0
    rows = [(_rate(one, known.get(one.subject), seconds), one) for one in now.operations]
    rows = [(rate, one) for rate, one in rows if one.requests]
    for rate, one in sorted(rows, key=lambda row: (-row[0], -row[1].requests))[:OPERATIONS_SHOWN]:
        numbers = (f"{rate:.1f}", str(one.requests), str(one.errors), f"{one.p99_ms:.1f}")
        table.add_row(one.subject, *numbers)
    return table


def _rate(now: Operation, before: Operation | None, seconds: float) -> float:
    """Requests per second; a process that was restarted counts from nothing again."""
    if before is None or seconds <= 0:
        return 0.0
    return max(0, now.requests - before.requests) / seconds


def _ago(time: str | None) -> str:
    if time is None:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    return f"{max(0.0, seconds):.0f} s ago"


def _progress(progress: Any) -> str:
    if not progress:
        return ""
    return ", ".join(f"{key}: {value}" for key, value in progress.items())
