"""The stream that holds all events: made once, checked at every start, never changed silently."""

import logging
from dataclasses import dataclass
from typing import Any, Final

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

_logger = logging.getLogger(__name__)

SUBJECTS: Final = ["events.>"]
_NAME_IN_USE: Final = 10058
_TAIL_PAGE: Final = 500


class StreamUnfit(Exception):
    """The stream exists with settings under which events could be lost."""


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


@dataclass(frozen=True, slots=True)
class Stored:
    """An event that the stream holds."""

    sequence: int
    position: int
    event_id: str


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


async def stored_after(js: JetStreamContext, info: StreamInfo, sequence: int) -> list[Stored]:
    """The events that the stream holds after `sequence`, without their bodies."""
    if sequence >= info.state.last_seq:
        return []
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=sequence + 1,
        ack_policy=AckPolicy.NONE,
        headers_only=True,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=30,
    )
    name = info.config.name or ""
    subscription = await js.pull_subscribe(SUBJECTS[0], stream=name, config=config)
    try:
        return await _drain(subscription, info.state.last_seq)
    finally:
        await subscription.unsubscribe()
        await js.delete_consumer(name, config.name or "")


async def _drain(subscription: JetStreamContext.PullSubscription, last: int) -> list[Stored]:
    stored: list[Stored] = []
    reached = 0
    while reached < last:
        try:
            messages = await subscription.fetch(_TAIL_PAGE, timeout=1)
        except NatsTimeoutError:
            # Nothing more is there: what the last sequence held was deleted since.
            break
        for message in messages:
            reached = message.metadata.sequence.stream
            headers = message.headers or {}
            position = headers.get("Fleet-Position", "")
            if position.isdecimal():
                stored.append(Stored(reached, int(position), headers.get("Nats-Msg-Id", "")))
    return stored


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
        duplicate_window=settings.duplicate_window,
        max_age=0,
        max_msgs=-1,
        max_bytes=-1,
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
            "subjects", "storage", "num_replicas", "duplicate_window", "max_age", "max_msgs",
            "max_bytes", "max_msgs_per_subject", "allow_atomic", "allow_direct",
        )
        if _value(found, key) != _value(wanted, key)
    }  # fmt: skip
    for key, (has, would_have) in differ.items():
        _logger.warning("stream %s has %s=%s, not %s", found.name, key, has, would_have)


def _value(config: StreamConfig, key: str) -> Any:
    value = getattr(config, key)
    return value.value if isinstance(value, StorageType) else value
