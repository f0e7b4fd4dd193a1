"""``fleetbus describe``: the operations, and how to call them."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.terminal import Failed, console, did_you_mean, print_json, run, say

if TYPE_CHECKING:
    from rich.table import Table


def describe(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help="An operation; if left out, all are listed."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the full answer of the service, including JSON Schemas."
        ),
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """List the operations of the running service, or describe one.

    What it takes, answers and refuses, the events it emits, and an example.

    Examples:
        fleetbus describe
        fleetbus describe db.tasks.claim
        fleetbus describe db.tasks.claim --json | jq .request
    """
    reply = run(_ask(nats_address(nats_url), subject))
    if as_json:
        print_json(reply)
    elif subject is None:
        _list(reply["items"])
    else:
        _describe(reply)


async def _ask(address: Address, subject: str | None) -> Any:
    from fleetbus.cli.connection import ask, connected, operations
    from fleetbus.cli.problems import Refused

    async with connected(address) as client:
        if subject is None:
            return await ask(client, "db.meta.operations")
        try:
            return await ask(client, "db.meta.describe", {"subject": subject})
        except Refused as refused:
            if refused.problem.get("type") != "operation_not_found":
                raise
            known = [operation["subject"] for operation in await operations(client) or []]
            raise Failed(f"there is no operation {subject}{did_you_mean(subject, known)}") from None


def _list(operations: list[dict[str, Any]]) -> None:
    out = console()
    for context, found in groupby(operations, key=lambda operation: operation["context"]):
        table = _table("operation", "kind", "summary")
        for operation in found:
            table.add_row(operation["subject"], operation["kind"], _plain(operation["summary"]))
        out.print(context, style="bold")
        out.print(table)


def _describe(operation: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"{operation['subject']}  ({operation['kind']}, {operation['context']})", style="bold"
    )
    say(_plain(operation["description"]))
    _section("Request")
    _fields(operation["request"])
    _section(f"Reply: {operation['reply'].get('title', '')}")
    _fields(operation["reply"], is_request=False)
    _section("Errors")
    table = _table("status", "type", "when")
    for error in sorted(operation["errors"], key=lambda error: not error["declared"]):
        again = " (may be tried again)" if error["retryable"] else ""
        table.add_row(str(error["status"]), error["type"], error["title"] + again)
    out.print(table)
    if operation["events"]:
        _section("Events")
        table = _table("type", "subject", "when")
        for event in operation["events"]:
            table.add_row(event["type"], event["subject"], event["summary"])
        out.print(table)
    _section("Example")
    request = json.dumps(operation["example"], ensure_ascii=False).replace("'", "'\\''")
    say(f"fleetbus call {operation['subject']} '{request}'")


def _fields(schema: dict[str, Any], *, is_request: bool = True) -> None:
    from fleetbus.cli.schemas import fields

    found = fields(schema)
    if not found:
        say("no fields")
        return
    table = _table("field", *([""] if is_request else []), "type", "meaning")
    for field in found:
        default = f" [{field.default} if left out]" if field.default and is_request else ""
        meaning = f"{_plain(field.description)}{default}".strip()
        required = ["required" if field.required else ""] if is_request else []
        table.add_row(field.name, *required, field.type, meaning)
    console().print(table)


def _plain(text: str) -> str:
    """A docstring's text without its markup."""
    return text.replace("``", "`")


def _section(title: str) -> None:
    say()
    console().print(title, style="bold")


def _table(first: str, *others: str) -> Table:
    """A table without frames; its first column is never cut."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, overflow="fold")
    return table
