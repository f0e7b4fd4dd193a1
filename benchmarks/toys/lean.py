"""nats-py imports aiohttp where it is installed, which it is for the load generator alone."""

import sys
from typing import Final

WITHOUT: Final = "aiohttp"

sys.modules[WITHOUT] = None  # type: ignore[assignment]  # as if it were not there
