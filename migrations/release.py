"""What was released does not change: the hash of every migration that a release has brought.

``python -m migrations.release`` adds those that are new. It belongs to the making of a release.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"
RELEASED = Path(__file__).parent / "released.txt"


class MigrationChanged(Exception):
    """A migration that has been released is not what it was."""


def present(directory: Path = VERSIONS) -> dict[str, str]:
    """The hash of every migration there is, by name, in the order in which they run."""
    paths = sorted(directory.glob("[0-9]*.py"))
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}


def released(record: Path = RELEASED) -> dict[str, str]:
    """The hash of every migration that has been released, by name."""
    lines = (line.split() for line in record.read_text().splitlines())
    return {name: digest for digest, name in lines}


def check(directory: Path = VERSIONS, record: Path = RELEASED) -> None:
    """Refuse one that has been changed or removed, or that stands before one of a release."""
    known, found = released(record), present(directory)
    for name, digest in known.items():
        if found.get(name) != digest:
            what = "is gone" if name not in found else "has been changed"
            raise MigrationChanged(
                f"{name} {what}, though databases have run it: write another migration"
            )
    if list(known) != list(found)[: len(known)]:
        raise MigrationChanged("a new migration must come after all that have been released")


def release(directory: Path = VERSIONS, record: Path = RELEASED) -> None:
    """From now on all there are do not change."""
    check(directory, record)
    lines = (f"{digest}  {name}\n" for name, digest in present(directory).items())
    record.write_text("".join(lines))


if __name__ == "__main__":
    release()
