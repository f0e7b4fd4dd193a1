"""``python -m tests.faults.serve NAME…``: `fleetbus serve`, changed on purpose.

By the name of a mistake, or by ``unmended``: without its reconciler.
"""

from __future__ import annotations

import sys

from fleetbus.cli.app import main
from tests.faults.broken import BROKEN, unmended

if __name__ == "__main__":
    for name in sys.argv[1:]:
        ({"unmended": unmended} | BROKEN)[name]()
    sys.argv = ["fleetbus", "serve", "--wait"]
    sys.exit(main())
