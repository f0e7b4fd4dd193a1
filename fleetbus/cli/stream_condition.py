"""The stream in words, for ``fleetbus doctor``: what it holds, drops and refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.logs import shown
from bus.storage.own import foreign_messages as _foreign

MAKE_ROOM = "`nats stream edit --discard old`, or raise its limits: it refuses new events"

NOBODY_ELSE = "find out who publishes on events.>, and let nobody but the relay do it"

RECENTLY = timedelta(hours=1)
"""How long a foreign message counts as something that goes on."""


async def described(js: JetStreamContext, info: StreamInfo) -> str:
    """How much is in it, what limits it, and how much room is left where that is known."""
    return f"{_held(info)}; {_limits(info)}{await _storage(js)}"


def _held(info: StreamInfo) -> str:
    state = info.state
    return f"{info.config.name} holds {state.messages} events, {state.bytes / 2**20:.1f} MiB"


def _limits(info: StreamInfo) -> str:
    """What keeps the stream from filling the disk."""
    config, limits = info.config, []
    if age := config.max_age or 0.0:
        limits.append(f"events older than {age / 86_400:g} days")
    if (most := config.max_bytes or -1) > 0:
        limits.append(f"events beyond {most / 2**20:.1f} MiB")
    if (most := config.max_msgs or -1) > 0:
        limits.append(f"all but {most} events")
    if not limits:
        return "it grows without limit (FLEETBUS_STREAM_MAX_AGE_DAYS, FLEETBUS_STREAM_MAX_BYTES)"
    return f"it drops {' and '.join(limits)}"


def refuses(info: StreamInfo) -> bool:
    """Whether it is full, and was told to take nothing new then."""
    config, state = info.config, info.state
    if config.discard != DiscardPolicy.NEW:
        return False
    by_bytes = 0 < (config.max_bytes or -1) <= state.bytes * 1.05
    return by_bytes or 0 < (config.max_msgs or -1) <= state.messages


async def _storage(js: JetStreamContext) -> str:
    """How much the account may still store, where that is limited."""
    try:
        found = await js.account_info()
    except (NatsError, TimeoutError):
        return ""  # a user may not ask that
    if (most := found.limits.max_storage) <= 0:
        return ""
    return f"; the account has {(most - found.storage) / 2**20:.1f} MiB left"


async def foreign(db: AsyncConnection) -> tuple[str, bool]:
    """What the relay removed because it was not ours, and whether that goes on."""
    if (removed := await _foreign.removed(db)) is None:
        return "", False
    told = (
        f"; {removed.messages} foreign messages were removed from the stream, the last one "
        f"{removed.last_at:%Y-%m-%d %H:%M:%S}Z from {shown(removed.last_subject)}"
    )
    return told, datetime.now(UTC) - removed.last_at < RECENTLY
