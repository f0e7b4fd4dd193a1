"""What is seen of a running demo: a live picture on a terminal, lines elsewhere, and the end."""

import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bus.contract.entity import Entity
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import Task, TaskQueue
from fleetbus.demo.recorder import Recorder
from fleetbus.demo.verify import Check

LINE_SECONDS = 1.0
"""Between two lines where there is no terminal."""

RATE_SECONDS = 2.0
VIOLATIONS_SHOWN = 10
COUNTS = ("ready", "waiting", "in_progress", "blocked", "completed")


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo came to."""

    stored: list[Entity]
    """The initiative, its phases and its tasks."""
    done_by: dict[str, int]
    events: int
    seconds: float
    checks: list[Check]
    failures: tuple[str, ...]
    """What went wrong with a process."""

    @property
    def good(self) -> bool:
        return not self.failures and all(check.kept for check in self.checks)

    def statuses(self, kind: type[Initiative | Phase | Task]) -> str:
        """How many entities of a kind are in which status."""
        counts = Counter(entity.status for entity in self.stored if isinstance(entity, kind))
        return ", ".join(f"{count} {_words(status)}" for status, count in counts.most_common())


class Display:
    """Shows progress for as long as the block lasts."""

    def __init__(self, console: Console, recorder: Recorder, workers: list[str]) -> None:
        self._console = console
        self._recorder = recorder
        self._workers = workers
        self._live = Live(console=console, refresh_per_second=10, transient=True)
        self._marks: list[tuple[float, int]] = []
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, queue: TaskQueue) -> None:
        """Show how it stands."""
        now = time.monotonic()
        rate = self._rate(now)
        if self._console.is_terminal:
            self._live.update(self._picture(queue, rate))
        elif now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            say(self._console, f"{_counts(queue)} · {rate:.0f} events/s")

    def _rate(self, now: float) -> float:
        """Events per second of late."""
        self._marks = [mark for mark in self._marks if mark[0] > now - RATE_SECONDS]
        self._marks.append((now, len(self._recorder.history)))
        (begin, few), (end, many) = self._marks[0], self._marks[-1]
        return (many - few) / (end - begin) if end > begin else 0.0

    def _picture(self, queue: TaskQueue, rate: float) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        for name in self._workers:
            mine = [task for who, task in self._recorder.in_hand.values() if who == name]
            done = str(self._recorder.done_by.get(name, 0))
            rows.add_row(name, Text(done, justify="right"), escape(" · ".join(mine)) or "[dim]idle")
        total = sum(getattr(queue, count) for count in COUNTS)
        counts = Text(f"{_counts(queue)} · {len(self._recorder.history)} events, {rate:.0f}/s")
        bar = Table.grid()
        bar.add_row(ProgressBar(total=total, completed=queue.completed, width=60))
        return Group(bar, counts, rows)


def show_result(console: Console, result: Result) -> None:
    """The table at the end, and the verdict."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("tasks", result.statuses(Task))
    table.add_row("phases", result.statuses(Phase))
    table.add_row("initiative", result.statuses(Initiative))
    for name, count in sorted(result.done_by.items()):
        table.add_row(escape(name), f"{count} tasks completed")
    table.add_row("duration", f"{result.seconds:.1f} s")
    table.add_row("events", f"{result.events}")
    console.print(table)
    for check in result.checks:
        _show_check(console, check)
    for failure in result.failures:
        say(console, f"✗ {failure}")
    say(
        console,
        "All of this was checked against the events." if result.good else "This is not right.",
    )


def say(console: Console, text: str) -> None:
    """A line as it is, whatever brackets are in it."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_check(console: Console, check: Check) -> None:
    say(console, f"{'✓' if check.kept else '✗'} {check.promise} ({check.count} checked)")
    for violation in check.violations[:VIOLATIONS_SHOWN]:
        say(console, f"    {violation}")
    if (more := len(check.violations) - VIOLATIONS_SHOWN) > 0:
        say(console, f"    and {more} more")


def _counts(queue: TaskQueue) -> str:
    return " · ".join(f"{getattr(queue, count)} {_words(count)}" for count in COUNTS)


def _words(name: str) -> str:
    return name.replace("_", " ")
