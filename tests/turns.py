"""Workers that run tests at the same time, and tests that are to be the only ones that run."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait for the machine and hold it, together with others or alone.

    `directory` is the same for all who take turns. Who comes after one that waits to be alone
    waits behind it.
    """
    with (directory / "queue").open("w") as queue, (directory / "machine").open("w") as machine:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
