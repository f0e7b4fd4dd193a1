"""``python -m fleetbus`` is the command ``fleetbus``."""

import sys

from fleetbus.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
