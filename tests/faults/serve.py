"""``python -m tests.faults.serve [NAME]``: `fleetbus serve` without its reconciler.

With a name it is also broken in one way, on purpose.
"""

from __future__ import annotations

import sys

from fleetbus.cli.app import main
from tests.faults.broken import BROKEN, unmended

if __name__ == "__main__":
    unmended()
    for name in sys.argv[1:]:
        BROKEN[name]()
    sys.argv = ["fleetbus", "serve", "--wait"]
    sys.exit(main())
