"""``python -m tests.faults.serve NAME``: `fleetbus serve`, broken in one way on purpose."""

from __future__ import annotations

import sys

from fleetbus.cli.app import main
from tests.faults.broken import BROKEN

if __name__ == "__main__":
    BROKEN[sys.argv[1]]()
    sys.argv = ["fleetbus", "serve", "--wait"]
    sys.exit(main())
