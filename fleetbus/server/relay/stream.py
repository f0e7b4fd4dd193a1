"""The stream that holds all events: made once, checked at every start, never changed silently."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import BadRequestError, NotFoundError

from fleetbus.server.relay.limits import Limits, change, window_within
from fleetbus.server.relay.reading import Found

_logger = logging.getLogger("fleetbus.relay")

SUBJECTS: Final = ["events.>"]
_NAME_IN_USE: Final = 10058
_POSITION: Final = re.compile(r"[1-9][0-9]{0,17}")
_PAGE: Final = 500
_PAGE_TIMEOUT: Final = 5.0
_SHORTEST_WINDOW: Final = 0.1
_FORGETTING: Final = 0.5
"""Seconds in which the server has looked through the ids of a shortened window."""


class StreamUnfit(Exception):
    """The stream exists with settings under which events could be lost."""


class StreamChanged(Exception):
    """Something happened to the stream that the relay did not do: it takes over anew."""


class StreamUnread(Exception):
    """Something of what the stream sent did not arrive; reading it again helps."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How the stream is created.

    The de-duplication window is the server's default: order and uniqueness come from the fence
    and from reading the stream's end at takeover, and a longer window costs the server memory
    for each event in it.
    """

    name: str = "EVENTS"
    replicas: int = 1
    duplicate_window: float = 120.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the stream that says that it is an event; whether it is one is judged later."""

    sequence: int
    position: int
    event_id: str
    time: str
    """When its transaction recorded it, as `ce-time` has it."""
    found: Found


async def ensure_stream(
    js: JetStreamContext, settings: StreamSettings, *, report: bool = True
) -> StreamInfo:
    """Create the stream, or check the one there is; harmless differences are logged."""
    wanted = _config(settings)
    try:
        info = await js.stream_info(settings.name)
    except NotFoundError:
        info = await _create(js, wanted)
    _refuse_unfit(info.config)
    if report:
        _report_differences(wanted, info.config)
    return info


async def stored_after(
    js: JetStreamContext,
    info: StreamInfo,
    sequence: int,
    *,
    strangers: list[Found] | None = None,
) -> AsyncGenerator[list[Stored]]:
    """The events that the stream holds after `sequence`, in pages and without their bodies.

    What does not say that it is an event is added to the `strangers`. It ends where the stream
    ended when `info` was asked for. Raises `StreamUnread` if some of it did not arrive.
    """
    if sequence >= info.state.last_seq or not info.state.messages:
        return
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=sequence + 1,
        ack_policy=AckPolicy.NONE,
        headers_only=True,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=60,
    )
    name, last = info.config.name or "", info.state.last_seq
    subscription = await js.pull_subscribe(SUBJECTS[0], stream=name, config=config)
    try:
        async for page in _pages(subscription, last):
            sequence = page[-1].metadata.sequence.stream
            found = [one for one in map(_found, page) if one.sequence <= last]
            yield events_in(found, strangers)
        if sequence < last:
            await _refuse_laggard(js, name, sequence)
    finally:
        with suppress(NatsError, TimeoutError):
            await subscription.unsubscribe()
            await js.delete_consumer(name, config.name or "")


@asynccontextmanager
async def forgetting_duplicates(client: Client, info: StreamInfo) -> AsyncIterator[None]:
    """Have the server take events again that it took a moment ago and does not hold any more.

    It remembers the ids of the duplicate window whatever was purged or deleted since; a window
    that is shortened meanwhile makes it forget them. What keeps events from being stored twice
    is the fence, not the window.
    """
    name, window = info.config.name or "", info.config.duplicate_window or 0.0
    if window <= _SHORTEST_WINDOW or not info.state.last_seq:
        yield
        return
    _logger.warning("stream %s forgets duplicates to accept lost events again", name)
    await _set_window(client, name, _SHORTEST_WINDOW)
    await asyncio.sleep(_FORGETTING)
    try:
        yield
    finally:
        await _set_window(client, name, window)


async def _set_window(client: Client, name: str, seconds: float) -> None:
    await change(client, name, {"duplicate_window": int(seconds * 1e9)})


async def id_at(js: JetStreamContext, stream: str, sequence: int) -> str | None:
    """The id of the event with this sequence; None if the stream does not hold it."""
    try:
        message = await js.get_msg(stream, sequence)
    except NotFoundError:
        return None
    return str((message.headers or {}).get("Nats-Msg-Id", ""))


async def _pages(
    subscription: JetStreamContext.PullSubscription, last: int
) -> AsyncGenerator[list[Msg]]:
    pending, received = (await subscription.consumer_info()).num_pending or 0, 0
    while pending:
        try:
            messages = await subscription.fetch(min(pending, _PAGE), timeout=_PAGE_TIMEOUT)
        except NatsTimeoutError:
            pending = await _still_pending(subscription, received)
            continue
        received += len(messages)
        metadata = messages[-1].metadata
        if metadata.sequence.consumer != received:
            raise StreamUnread("events were lost on the way")
        yield messages
        pending = 0 if metadata.sequence.stream >= last else metadata.num_pending


async def _refuse_laggard(js: JetStreamContext, stream: str, reached: int) -> None:
    """A consumer reads one replica, which may be behind; the leader knows what is there."""
    with suppress(NotFoundError):
        if ((await js.get_last_msg(stream, SUBJECTS[0])).seq or 0) > reached:
            raise StreamUnread("the replica that was read is behind")


async def _still_pending(subscription: JetStreamContext.PullSubscription, received: int) -> int:
    """What is yet to come, if all that was sent has arrived: silence alone says nothing."""
    info = await subscription.consumer_info()
    if (info.delivered.consumer_seq if info.delivered else 0) != received:
        raise StreamUnread("events were lost on the way")
    return info.num_pending or 0


def events_in(page: list[Found], strangers: list[Found] | None) -> list[Stored]:
    """Those that say that they are events; the others are added to the strangers."""
    events = []
    for found in page:
        headers = found.headers or {}
        position = headers.get("Fleet-Position", "")
        if _POSITION.fullmatch(position):
            event_id, time = headers.get("Nats-Msg-Id", ""), headers.get("ce-time", "")
            events.append(Stored(found.sequence, int(position), event_id, time, found))
        elif strangers is not None:
            strangers.append(found)
    return events


def _found(message: Msg) -> Found:
    return Found(message.metadata.sequence.stream, message.subject, message.headers or {}, None)


async def _create(js: JetStreamContext, wanted: StreamConfig) -> StreamInfo:
    try:
        info = await js.add_stream(wanted)
    except BadRequestError as refusal:
        if refusal.err_code != _NAME_IN_USE:
            raise
        # Somebody else made it meanwhile, with other settings.
        return await js.stream_info(wanted.name or "")
    _logger.info("created the stream %s", wanted.name)
    return info


def _config(settings: StreamSettings) -> StreamConfig:
    return StreamConfig(
        name=settings.name,
        description="Every event, in causal order. Written by the relay of fleetbus alone.",
        subjects=SUBJECTS,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=settings.replicas,
        duplicate_window=window_within(settings.duplicate_window, settings.limits.new_age),
        max_age=settings.limits.new_age or 0,
        max_msgs=-1,
        max_bytes=settings.limits.new_bytes,
        # Servers before 2.12 do not know it and leave it out of what they answer.
        allow_atomic=True,
        allow_direct=True,
    )


def _refuse_unfit(found: StreamConfig) -> None:
    reasons = []
    if not set(SUBJECTS) <= set(found.subjects or []):
        reasons.append(f"subjects are {found.subjects}, not {SUBJECTS}")
    if found.retention != RetentionPolicy.LIMITS:
        reasons.append(f"retention is {found.retention}: consumers would delete events")
    if found.no_ack:
        reasons.append("no_ack: nobody would know what is stored")
    if found.sealed:
        reasons.append("sealed: nothing can be stored")
    if reasons:
        raise StreamUnfit(f"stream {found.name}: " + "; ".join(reasons))


def _report_differences(wanted: StreamConfig, found: StreamConfig) -> None:
    differ = {
        key: (_value(found, key), _value(wanted, key))
        for key in (
            "subjects", "storage", "num_replicas", "duplicate_window", "max_msgs",
            "max_msgs_per_subject", "allow_atomic", "allow_direct",
        )
        if _value(found, key) != _value(wanted, key)
    }  # fmt: skip
    for key, (has, would_have) in differ.items():
        _logger.warning("stream %s has %s=%s, not %s", found.name, key, has, would_have)


def _value(config: StreamConfig, key: str) -> Any:
    value = getattr(config, key)
    return value.value if isinstance(value, StorageType) else value
