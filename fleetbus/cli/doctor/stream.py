"""The stream: whether it is as it must be, and what it holds, drops and refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamInfo
from nats.js.errors import NotFoundError
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.logs import shown
from bus.storage.own import foreign_messages as _foreign
from fleetbus.cli.doctor.check import Check
from fleetbus.server.config import Settings
from fleetbus.server.relay.stream import StreamSettings, StreamUnfit, ensure_stream
from fleetbus.server.starting import words

MAKE_ROOM = "`nats stream edit --discard old`, or raise its limits: it refuses new events"

NOBODY_ELSE = "find out who publishes on events.>, and let nobody but the relay do it"

RECENTLY = timedelta(hours=1)
"""How long a foreign message counts as something that goes on."""


async def stream(client: Client, settings: Settings) -> Check:
    js, name = client.jetstream(), "stream"
    try:
        info = await js.stream_info(settings.stream)
        await ensure_stream(js, StreamSettings(name=settings.stream), report=False)
    except NotFoundError:
        what = f"there is no stream {settings.stream}"
        return Check(name, False, what, "a `fleetbus serve` without --no-relay creates it")
    except StreamUnfit as unfit:
        return Check(name, False, str(unfit), "fix it with `nats stream edit`")
    except (NatsError, TimeoutError) as error:
        start = "start nats-server with --jetstream"
        return Check(name, False, f"JetStream does not answer: {words(error)}", start)
    detail = await description(js, info)
    if refuses(info):
        return Check(name, False, f"{detail}; it is full", MAKE_ROOM)
    if not info.config.allow_atomic:
        remedy = "use NATS 2.12 or newer and `nats stream edit --allow-batch`"
        return Check(name, False, f"{detail}; it does not accept atomic batches", remedy)
    return Check(name, True, detail)


async def description(js: JetStreamContext, info: StreamInfo) -> str:
    """How much is in it, what limits it, and how much room is left where that is known."""
    return f"{_contents(info)}; {_limits(info)}{await _storage(js)}"


def _contents(info: StreamInfo) -> str:
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
