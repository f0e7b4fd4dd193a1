"""Nobody relies on a flush that tells nothing of what waits to be written."""

import re
from pathlib import Path

import fleetbus
from fleetbus import flushing

ROOT = Path(fleetbus.__file__).parent
OVERTAKING = re.compile(r"(client|nats|nc|connection)\.flush\(")


def test_only_our_flush_uses_that_of_nats_py() -> None:
    using = {path for path in ROOT.rglob("*.py") if OVERTAKING.search(path.read_text())}
    assert using == {Path(flushing.__file__)}
