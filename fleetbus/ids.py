"""UUIDs of version 7 (RFC 9562): ordered by time, and strictly increasing within a process."""

from __future__ import annotations

import os
import time
from uuid import UUID

_last = 0


def uuid7() -> UUID:
    """A new id: 48 bits of Unix milliseconds, 12 of a finer clock, 62 random ones."""
    global _last  # noqa: PLW0603  the clock of the process
    # Method 3 of section 6.2: the fraction of the millisecond fills rand_a, in 1/4096 steps.
    ticks = time.time_ns() * 4096 // 1_000_000
    _last = max(ticks, _last + 1)
    milliseconds, fraction = divmod(_last, 4096)
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
