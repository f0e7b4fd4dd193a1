"""Data directories that versions before left, packed by ``make.py``."""

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from fleetbus.embedded._cluster import server_user

FOLDER = Path(__file__).parent
RECORDED = "recorded.json"

REVISIONS = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)


def revisions() -> list[str]:
    """The last migrations of the versions that are kept."""
    return sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.tar.xz"))


def unpack(revision: str, directory: Path, data_dir: Path) -> Any:
    """Put a kept directory there; returns what its version answered."""
    with tarfile.open(FOLDER / f"{revision}.tar.xz") as packed:
        # The filter "data" leaves out the modes of directories, on which Postgres insists.
        packed.extractall(directory, filter="tar")
    (directory / "data").rename(data_dir)
    cluster = data_dir / "postgres"
    if os.geteuid() == 0:
        user = server_user(cluster)
        for path in (cluster, *cluster.rglob("*")):
            shutil.chown(path, user.uid, user.gid)
    return json.loads((directory / RECORDED).read_text(encoding="utf-8"))
