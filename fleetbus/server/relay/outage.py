"""An outage of the relay, as the log has it."""

import logging
import time

_logger = logging.getLogger("fleetbus.relay")


class Outage:
    """Says once that something is wrong, and once that it is over."""

    def __init__(self) -> None:
        self._since: float | None = None

    def began(self, failure: Exception) -> None:
        """Note a failure; only the first of an outage is logged as one."""
        if self._since is None:
            self._since = time.monotonic()
            _logger.warning("the relay is interrupted and retries: %r", failure)
        else:
            _logger.debug("the relay is still interrupted: %r", failure)

    def ended(self, now: str) -> None:
        """Note a success."""
        if self._since is not None:
            _logger.info("the relay is %s after %.1f s", now, time.monotonic() - self._since)
            self._since = None
