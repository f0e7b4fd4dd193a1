"""nats-py imports aiohttp where it is installed, which it is for the load generator alone."""

import sys

sys.modules["aiohttp"] = None  # type: ignore[assignment]  # as if it were not there
