"""Nobody relies on a flush that tells nothing of what waits to be written."""

import re
from pathlib import Path

import bus
import fleetbus
from bus.kit import nats_io as flushing

ROOTS = [Path(str(package.__file__)).parent for package in (bus, fleetbus)]
OVERTAKING = re.compile(r"(client|nats|nc|connection)\.flush\(")


def test_only_our_flush_uses_that_of_nats_py() -> None:
    using = {
        path for root in ROOTS for path in root.rglob("*.py") if OVERTAKING.search(path.read_text())
    }
    assert using == {Path(flushing.__file__)}
