"""``fleetbus events replay``: history once more, to a subject of one's own."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.events import point_in_time
from fleetbus.cli.terminal import Failed, note, run, say
from fleetbus.server.relay.claims import claimed

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

PAGE = 100
"""Events that are on their way at once."""

MARGIN = timedelta(minutes=5)
"""How far the clocks of database and broker may be apart: an event is stored after it happened."""

_RESERVED = ("events", "db", "_fleetbus", "_INBOX")
_FENCES = ("Nats-Expected-", "Nats-Batch-")
_ACK_TIMEOUT = 10.0


@dataclass(frozen=True)
class Span:
    """A part of history: from a position or a time, up to a time.

    Foreign messages in the stream are not part of it.
    """

    position: int = 0
    time: datetime | None = None
    until: datetime | None = None

    def has(self, headers: dict[str, str]) -> bool:
        """Whether an event with these headers lies in it."""
        claim = claimed(headers)
        if claim is None or claim.position < self.position:
            return False
        try:
            happened = datetime.fromisoformat(headers.get("ce-time", "")).astimezone(UTC)
        except (ValueError, OverflowError):
            return False
        return (self.time is None or happened >= self.time) and (
            self.until is None or happened < self.until
        )


def replay(
    *,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHEN",
            help="A position (1200), a time (2026-01-31T12:00Z), or how long ago (15m, 2d).",
        ),
    ],
    to: Annotated[
        str,
        typer.Option("--to", metavar="SUBJECT", help="The subject to send to, one of your own."),
    ],
    subject: Annotated[
        str, typer.Option(metavar="FILTER", help="Which events, by subject.")
    ] = "events.>",
    to_time: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to this time; otherwise to the end.")
    ] = None,
    nats_url: NatsUrl = None,
) -> None:
    """Send history to a subject of your own, for a new consumer.

    It reads the stream (EVENTS, or the one that FLEETBUS_STREAM names), in its
    order, up to its present end. Events keep body and headers and get
    `Fleet-Replay: true`. If a stream stores the subject, each event is
    acknowledged; two replays within its duplicate window count as one.

    Examples:
        fleetbus events replay --from 2d --to reports.catch_up
        fleetbus events replay --from 1200 --subject 'events.task.>' --to audit.tasks
    """
    _check_target(to)
    _check_filter(subject)
    until = point_in_time(to_time, "--to-time") if to_time else None
    if start.isdecimal():
        span = Span(position=int(start), until=until)
    else:
        span = Span(time=point_in_time(start, "--from"), until=until)
    run(_replay(nats_address(nats_url), span, subject, to))


def _check_target(subject: str) -> None:
    from fleetbus.cli.connection import is_subject

    first = subject.partition(".")[0]
    if not is_subject(subject):
        raise typer.BadParameter(f"{subject!r} is not a subject to send to", param_hint="--to")
    if first in _RESERVED or first.startswith("$"):
        raise typer.BadParameter(
            f"{subject} belongs to fleetbus or NATS: nothing may be sent under {first}.",
            param_hint="--to",
        )


def _check_filter(subject: str) -> None:
    tokens = subject.split(".")
    if tokens[0] != "events" or len(tokens) < 2 or not all(tokens) or ">" in tokens[:-1]:
        raise typer.BadParameter(
            f"{subject!r} is not a subject of events: events.task.> or events.*.*.<id>",
            param_hint="--subject",
        )


async def _replay(address: Address, span: Span, subject: str, to: str) -> None:
    from contextlib import aclosing

    from fleetbus.cli.connection import connected
    from fleetbus.cli.stream import StreamReader

    stream = os.environ.get("FLEETBUS_STREAM") or "EVENTS"
    async with connected(address) as client:
        await _warn_if_cut_off(client, stream, span)
        since = span.time - MARGIN if span.time else None
        reader = StreamReader(client, stream, [subject], since)
        sender = _Sender(client, to, acknowledged=await _is_stored(client, to))
        async with aclosing(reader.messages(follow=False)) as messages:
            async for message in messages:
                if span.has(message.headers or {}):
                    await sender.send(message)
        await sender.flush()
    say(f"{sender.sent} events were sent to {to}")


async def _is_stored(client: Client, subject: str) -> bool:
    """Whether a stream takes what is sent there."""
    from nats.js.errors import NotFoundError

    try:
        await client.jetstream().find_stream_name_by_subject(subject)
    except NotFoundError:
        return False
    return True


async def _warn_if_cut_off(client: Client, stream: str, span: Span) -> None:
    """Say if the stream does not go back so far: it has a limit, or was cut off."""
    from nats.errors import Error as NatsError

    js = client.jetstream()
    try:
        info = await js.stream_info(stream)
        if info.state.first_seq <= 1 or not info.state.messages:
            return
        headers = (await js.get_msg(stream, info.state.first_seq)).headers or {}
    except NatsError:
        return
    if (claim := claimed(headers)) is None:
        return
    position, time = claim.position, headers.get("ce-time", "")
    before = False
    with contextlib.suppress(ValueError):
        before = bool(span.time and span.time < datetime.fromisoformat(time).astimezone(UTC))
    if before or (span.time is None and span.position < position):
        note(f"the stream begins at position {position}, {time}; db.events.list may know more")


class _Sender:
    """Sends events in order, a page at a time; where a stream takes them, until it has."""

    def __init__(self, client: Client, to: str, *, acknowledged: bool) -> None:
        self.sent = 0
        self._client = client
        self._to = to
        self._acknowledged = acknowledged
        self._page: list[Msg] = []

    async def send(self, message: Msg) -> None:
        """Send an event, now or with those that follow."""
        self._page.append(message)
        if len(self._page) == PAGE:
            await self.flush()

    async def flush(self) -> None:
        """Send what is kept."""
        import asyncio

        from nats.errors import Error as NatsError

        from bus.kit.nats_io import flush

        page, self._page = self._page, []
        try:
            if self._acknowledged:
                # Each is written before the next: answers are waited for together.
                await asyncio.gather(*map(self._store, page))
            else:
                for message in page:
                    await self._client.publish(self._to, message.data, headers=_headers(message))
                await flush(self._client)
        except (NatsError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            position = (page[0].headers or {}).get("Fleet-Position")
            raise Failed(
                f"sending to {self._to} failed: {reason}\n"
                f"  Continue with --from {position}; some of these may have arrived."
            ) from None
        self.sent += len(page)

    async def _store(self, message: Msg) -> None:
        answer = await self._client.request(
            self._to, message.data, timeout=_ACK_TIMEOUT, headers=_headers(message)
        )
        if "error" in (stored := json.loads(answer.data)):
            raise ValueError(stored["error"].get("description", "the stream refuses it"))


def _headers(message: Msg) -> dict[str, str]:
    """The event's own headers: not what fenced it when it was published."""
    own = {k: v for k, v in (message.headers or {}).items() if not k.startswith(_FENCES)}
    return own | {"Fleet-Replay": "true"}
