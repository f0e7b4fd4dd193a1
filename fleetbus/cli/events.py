"""``fleetbus events``: what happened, and what happens."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.terminal import did_you_mean, printable, run, say
from fleetbus.client.connection.foreign import position_of

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


def events(
    context: typer.Context,
    *,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only events of this type, such as task.completed; repeatable.",
        ),
    ] = None,
    entity: Annotated[
        str | None, typer.Option(metavar="ID", help="Only events of the entity with this id.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="From this long ago (90s, 15m, 1h30m, 2d), from a time (2026-01-31T12:00Z), or "
            "`now`; otherwise from the beginning of the stream.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new events until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One CloudEvents JSON object per line.")
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """Print events: time, type, entity id, name and status; for more, see its commands.

    It reads the stream (EVENTS, or the one that FLEETBUS_STREAM names).
    Without --follow it stops where the stream ended when the command began.

    Examples:
        fleetbus events --since 1h
        fleetbus events --type task.completed --type task.blocked --follow
        fleetbus events --entity 0199c0de-0000-7000-8000-000000000001
        fleetbus events --since now --follow --json | jq .data.task.name
    """
    if context.invoked_subcommand is not None:
        return
    start = None if since in {None, "now"} else point_in_time(str(since), "--since")
    address = nats_address(nats_url)
    run(
        _print(
            address,
            types or [],
            entity,
            since=start,
            only_new=since == "now",
            follow=follow,
            as_json=as_json,
        )
    )


async def _print(
    address: Address,
    types: list[str],
    entity: str | None,
    *,
    since: datetime | None,
    only_new: bool,
    follow: bool,
    as_json: bool,
) -> None:
    from contextlib import aclosing

    from fleetbus.cli.connection import connected
    from fleetbus.cli.stream import StreamReader

    stream = os.environ.get("FLEETBUS_STREAM") or "EVENTS"
    async with connected(address) as client:
        await _check_types(client, types)
        reader = StreamReader(client, stream, _subjects(types, entity), since, only_new)
        async with aclosing(reader.messages(follow=follow)) as messages:
            async for message in messages:
                say(json.dumps(cloud_event(message)) if as_json else line(message))
                if follow:
                    sys.stdout.flush()


async def _check_types(client: Client, types: list[str]) -> None:
    """Refuse a type that neither this program nor the service knows."""
    from fleetbus import domain

    if not types:
        return
    known = {event.fact.type for event in domain.catalogue().events}
    if set(types) <= known:
        return
    known |= await _served_types(client)
    for unknown in (name for name in types if name not in known):
        raise typer.BadParameter(
            f"there is no event {unknown}{did_you_mean(unknown, known)}", param_hint="--type"
        )


async def _served_types(client: Client) -> set[str]:
    """The types that the service knows, asked of each context: all at once may be too large."""
    from fleetbus.cli.connection import ask, operations
    from fleetbus.cli.terminal import Failed

    prefix = "events."
    found: set[str] = set()
    for context in sorted({o["context"] for o in await operations(client) or []}):
        try:
            channels = (await ask(client, "db.meta.asyncapi", {"context": context}))["channels"]
        except Failed:
            continue
        found |= {name.removeprefix(prefix) for name in channels if name.startswith(prefix)}
    return found


def _subjects(types: list[str], entity: str | None) -> list[str]:
    last = "*" if entity is None else token(entity)
    return [f"events.{kind}.{last}" for kind in dict.fromkeys(types) or ["*.*"]]


def token(entity_id: str) -> str:
    """An id as the last token of a subject, written as the relay writes it."""
    return quote(entity_id, safe="~:@+,").replace(".", "%2E") or "%00"


def point_in_time(text: str, option: str) -> datetime:
    """A time, or so long ago, as an option gives it."""
    if _DURATION.fullmatch(text):
        parts = re.findall(r"([\d.]+)([smhdw])", text)
        try:
            return datetime.now(UTC) - sum(
                (timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta()
            )
        except OverflowError:
            return datetime.fromtimestamp(0, UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a time like 2026-01-31T12:00Z nor a while like 90s, 15m, 1h30m",
            param_hint=option,
        ) from None
    try:
        return time.astimezone(UTC)
    except (OverflowError, ValueError):
        raise typer.BadParameter(f"{text!r} is out of range", param_hint=option) from None


def cloud_event(message: Msg) -> dict[str, Any]:
    """An event in the JSON format of CloudEvents, its data inside."""
    headers = message.headers or {}
    attributes: dict[str, Any] = {
        name.removeprefix("ce-"): value for name, value in headers.items() if name[:3] == "ce-"
    }
    if (position := position_of(headers)) is not None:
        attributes["position"] = position
    if cause := headers.get("Fleet-Cause"):
        attributes["cause"] = cause
    if traceparent := headers.get("traceparent"):
        attributes["traceparent"] = traceparent
    return attributes | {"data": _data(message)}


def line(message: Msg) -> str:
    """An event on one line: time, type, entity id, name and status."""
    event = cloud_event(message)
    _, entity, fact, last = (message.subject.split(".") + [""] * 3)[:4]
    kind = str(event.get("type") or f"{entity}.{fact}")
    time = _shown_time(str(event.get("time", "")))
    subject = str(event.get("subject") or last)
    text = f"{time}  {kind:<26}  {subject:<36}  {_summary(kind, event['data'])}"
    return printable(text).rstrip()


def _summary(kind: str, data: Any) -> str:
    """The name of the entity, and its status, with the one before where the event tells it."""
    if not isinstance(data, dict):
        return ""
    entity = data.get(kind.partition(".")[0])
    if not isinstance(entity, dict):
        return ""
    name = next((entity[key] for key in ("name", "title", "slug") if entity.get(key)), "")
    status = str(entity.get("status") or "")
    if (before := data.get("previous_status")) and before != status:
        status = f"{before} → {status}"
    return f"{name}  [{status}]" if status else str(name)


def _shown_time(text: str) -> str:
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return text.ljust(24)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


def _data(message: Msg) -> Any:
    try:
        return json.loads(message.data)
    except (ValueError, RecursionError):
        return message.data.decode(errors="replace")
