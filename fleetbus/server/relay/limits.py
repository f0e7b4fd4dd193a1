"""The limits of the stream: how old events may get in it, and how many bytes they may take.

Who sets them by the settings is obeyed at each takeover. What is not set there is left as it is in
the stream, whoever gave it to it: nothing is loosened or tightened that nobody asked for.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.js.api import StreamInfo
from nats.js.errors import APIError

_logger = logging.getLogger("fleetbus.relay")

_TIMEOUT: Final = 5.0
_DAY: Final = 86_400.0
_NONE: Final = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """What was told; None: nothing was. A zero is no limit."""

    max_age_days: float | None = None
    max_bytes: int | None = None
    max_bytes_at_creation: int | None = None
    """For a stream that is made, where nothing else was told."""

    @property
    def new_age(self) -> float:
        """Seconds that a new stream keeps events; 0 for ever."""
        return (self.max_age_days or 0.0) * _DAY

    @property
    def new_bytes(self) -> int:
        """Bytes of a new stream; -1 without end."""
        answer = self.max_bytes_at_creation if self.max_bytes is None else self.max_bytes
        return answer or _NONE


async def apply(client: Client, info: StreamInfo, limits: Limits) -> bool:
    """Give the stream the limits that were told; true if it had others. Changes nothing else."""
    config, changes = info.config, dict[str, Any]()
    if limits.max_age_days is not None and limits.new_age != (config.max_age or 0.0):
        changes["max_age"] = int(limits.new_age * 1e9)
        window = config.duplicate_window or 0.0
        if window_within(window, limits.new_age) != window:
            changes["duplicate_window"] = changes["max_age"]
    if limits.max_bytes is not None and limits.new_bytes != (config.max_bytes or _NONE):
        changes["max_bytes"] = limits.new_bytes
    if not changes:
        return False
    _logger.warning("the limits of stream %s are changed: %s", config.name, changes)
    await change(client, config.name or "", changes)
    return True


def window_within(window: float, age: float) -> float:
    """The duplicate window: the server refuses one that is longer than events are kept."""
    return min(window, age) if age else window


async def change(client: Client, name: str, changes: dict[str, Any]) -> None:
    """Change nothing else, also of what our client library does not know."""
    answer = await client.request(f"$JS.API.STREAM.INFO.{name}", timeout=_TIMEOUT)
    config = json.loads(answer.data)["config"] | changes
    answer = await client.request(
        f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config).encode(), timeout=_TIMEOUT
    )
    if "error" in (updated := json.loads(answer.data)):
        raise APIError.from_error(updated["error"])
