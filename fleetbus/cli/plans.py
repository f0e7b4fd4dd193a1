"""``fleetbus import`` and ``fleetbus demo``: plans of other tools."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.terminal import Failed, console, printable, run, say

if TYPE_CHECKING:
    from fleetbus.importing.plan import Plan
    from fleetbus.importing.report import LoadReport

_AGAIN = "Run it again: it continues where it stopped."
_ELSEWHERE = (
    "Unarchive it (db.initiatives.unarchive), or import into another one with another --name."
)

REASONS = 10
"""Reasons of one sort that are told unless all are asked for."""


class Tool(StrEnum):
    """Whose plans can be read."""

    BEADS = "beads"
    TASKMASTER = "taskmaster"


def import_(
    tool: Annotated[
        Tool, typer.Argument(metavar="beads|taskmaster", help="The tool that wrote the file.")
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Beads: issues.jsonl; Task Master: tasks.json.")
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The initiative to import into, or to update; by default the name in the file.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name every record that needs a remark.")
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """Import a plan from another tool.

    As often as you like: new entries are created, changed ones are
    updated, and nothing is deleted. The exit code is 1 if a change was
    refused.

    Examples:
        fleetbus import beads .beads/issues.jsonl --name website --dry-run
        fleetbus import taskmaster tasks.json --name website
    """
    plan = _read(tool, file, name)
    report = run(_load(nats_address(nats_url), plan, tool, dry_run=dry_run))
    _print(report, verbose=verbose)
    if any(refused for *_, refused in report.rows()):
        raise typer.Exit(1)


def demo(
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN", help="A Beads file; otherwise the included one."),
    ] = None,
) -> None:
    """Run a plan from start to end, on servers of its own.

    The servers come from the extra "embedded" and leave nothing behind.

    Examples:
        fleetbus demo
        fleetbus demo .beads/issues.jsonl
    """
    from fleetbus.demo.run import main

    if plan is not None and not plan.is_file():
        raise Failed(f"there is no file {plan}")
    raise typer.Exit(main(plan))


def _read(tool: Tool, file: Path, name: str | None) -> Plan:
    from fleetbus.importing.beads import open_beads
    from fleetbus.importing.plan import PlanUnreadable
    from fleetbus.importing.taskmaster import open_taskmaster

    reader = open_beads if tool is Tool.BEADS else open_taskmaster
    try:
        return reader(file, name=name)
    except PlanUnreadable as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None


async def _load(address: Address, plan: Plan, tool: Tool, *, dry_run: bool) -> LoadReport:
    from nats.errors import Error as NatsError
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from bus.contract.refusals import Refusal
    from contracts.planning.tasks import InitiativeClosed
    from fleetbus.cli.connection import ask, connected
    from fleetbus.client import Client, NoAnswer
    from fleetbus.importing.load import load_plan

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with connected(address) as client:
        # Without handlers it says so now, not after half a minute.
        await ask(client, "db.meta.operations")
        bus = Client(client, timeout=30.0, attempt_timeout=10.0)
        shown = console(stderr=True)
        with Progress(
            *columns, console=shown, transient=True, disable=not shown.is_terminal
        ) as bar:
            task = bar.add_task("reading existing entities", total=None)

            def progress(done: int, total: int, what: str) -> None:
                bar.update(task, completed=done, total=total, description=what)

            try:
                return await load_plan(
                    bus, plan, source=tool.value, dry_run=dry_run, progress=progress
                )
            except Refusal as refusal:
                advice = _ELSEWHERE if isinstance(refusal, InitiativeClosed) else _AGAIN
                raise Failed(f"the import broke off: {refusal}\n  {advice}") from None
            except (NoAnswer, NatsError) as failure:
                raise Failed(f"the import broke off: {failure}\n  {_AGAIN}") from None


def _print(report: LoadReport, *, verbose: bool) -> None:
    from rich.table import Table

    head = "would be imported into" if report.dry_run else "imported into"
    known = f" ({report.initiative_id})" if report.initiative_id else ""
    say(f"{head} the initiative {printable(report.external_ref)}{known}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for heading in ("created", "updated", "unchanged", "refused"):
        table.add_column(heading, justify="right")
    for what, *counts in report.rows():
        table.add_row(what, *map(str, counts))
    console().print(table)
    if report.gone_tasks or report.gone_dependencies:
        say(
            f"no longer in the plan, and left as they are: {report.gone_tasks} tasks, "
            f"{report.gone_dependencies} dependencies"
        )
    _print_remarks(report.remarks(), verbose=verbose)


def _print_remarks(remarks: list[tuple[str, str, str]], *, verbose: bool) -> None:
    """Say what did not simply go in, and why: by reason, or with ``verbose`` one by one."""
    for sort, count in Counter(sort for sort, _, _ in remarks).items():
        say(f"{sort}: {count}")
        found = [(ref, text) for kind, ref, text in remarks if kind == sort]
        if verbose:
            for ref, text in found:
                say(f"  {printable(ref)}: {printable(text)}")
            continue
        reasons = Counter(_reason(text) for _, text in found)
        for reason, times in reasons.most_common(REASONS):
            first = next(ref for ref, text in found if _reason(text) == reason)
            others = f" and {times - 1} more" if times > 1 else ""
            say(f"  {printable(reason)}: {printable(first)}{others}")
        if len(reasons) > REASONS:
            say(f"  and {len(reasons) - REASONS} other reasons; --verbose names all of them")


def _reason(text: str) -> str:
    """A remark without the ids in it, so that the same reason reads the same."""
    return re.sub(r"…( → …)+", "…", re.sub(r"\S*\d\S*", "…", text))
