"""Logs as lines on stderr: time, level, logger, message.

What others can cause as often as they like is logged by ``limited`` and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from types import TracebackType
from typing import Final

ExcInfo = (
    BaseException
    | bool
    | tuple[type[BaseException], BaseException, TracebackType | None]
    | tuple[None, None, None]
    | None
)

LINES: Final = 10
"""Lines of one kind that are written in an interval; further ones are counted."""

INTERVAL: Final = 10.0
"""Seconds after which lines of a kind are written again, and those left out are told."""

SHOWN: Final = 200
"""Characters of a text of somebody else that a line shows."""


def configure(level: str, *, prefix: str = "") -> None:
    """Send everything of this level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s {prefix}%(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("nats", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def limited(
    log: logging.Logger,
    level: int,
    kind: str,
    message: str,
    *args: object,
    exc_info: ExcInfo = None,
) -> bool:
    """Log what others can cause: at most ``LINES`` lines of a kind in ``INTERVAL`` seconds.

    As ``log.log(level, message, *args)``, for instance ``limited(log, logging.WARNING,
    "refused", "%s: %s", subject, shown(text))``. Further lines of the kind are counted, and when
    the interval is over one line says how many: ``… and 12,345 more like it (refused)``. ``kind``
    is a word of the code (or with the name of an operation in it), never a text of a caller. What
    comes from outside goes through ``shown``. Returns whether the line was written.
    """
    now = time.monotonic()
    window = _windows.get(kind)
    if window is None or now >= window.ends:
        if window is not None:
            window.close()
        window = _windows[kind] = _Window(log, level, kind, now + INTERVAL)
    counts[kind] += 1
    if window.written >= LINES:
        window.leave_out()
        return False
    window.written += 1
    log.log(level, message, *args, exc_info=exc_info, stacklevel=2)
    return True


def shown(text: object) -> str:
    """A text of somebody else as a line may show it: quoted, without control characters, short."""
    quoted = repr(text if len(str(text)) <= SHOWN else str(text)[:SHOWN] + "…")
    return quoted.encode("utf-8", "backslashreplace").decode()


counts: Counter[str] = Counter()
"""How often each kind came, written or not."""


class _Window:
    """One kind in one interval."""

    def __init__(self, log: logging.Logger, level: int, kind: str, ends: float) -> None:
        self.ends = ends
        self.written = 0
        self._log = log
        self._level = level
        self._kind = kind
        self.left_out = 0

    def leave_out(self) -> None:
        """Count a line; the first one has the count told when the interval is over."""
        self.left_out += 1
        if self.left_out == 1:
            with contextlib.suppress(RuntimeError):  # without a loop the next line tells it
                loop = asyncio.get_running_loop()
                loop.call_later(max(0.0, self.ends - time.monotonic()), self.close)

    def close(self) -> None:
        """Tell how many lines were left out."""
        left_out, self.left_out = self.left_out, 0
        if left_out:
            self._log.log(self._level, "… and %s more like it (%s)", f"{left_out:,}", self._kind)


_windows: dict[str, _Window] = {}


def forget() -> None:
    """Begin anew, as a process does that has logged nothing yet."""
    for window in _windows.values():
        window.left_out = 0
    _windows.clear()
    counts.clear()
