"""Logs as lines on stderr: time, level, logger, message."""

from __future__ import annotations

import logging
import sys


def configure(level: str, *, prefix: str = "") -> None:
    """Send everything of this level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s {prefix}%(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("nats", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
