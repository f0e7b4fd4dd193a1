"""Keep the data directory of a version: ``python -m tests.fleetbus.upgrades.make <git ref>``.

The version is taken out of git, run as ``fleetbus up`` on a fresh directory, told a scenario over
plain NATS, and stopped. What it wrote and what it answered is packed into one file.
"""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from fleetbus.embedded._cluster import postgres_install, server_user
from tests.fleetbus.upgrades.kept import FOLDER, RECORDED, REVISIONS
from tests.fleetbus.upgrades.scenario import play
from tests.fleetbus.upgrades.speaking import speaking
from tests.servers import server_directory

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path("requirements") / "dev.txt"

WRITTEN_ANEW = ("lock", "nats.conf", "nats.log", "nats.port", "postgres.log", "postgres.port")
"""What each start makes again; some of it names paths of the machine."""


def take_out(ref: str, tree: Path) -> str:
    """The files of a version; returns its last migration."""
    tree.mkdir()
    archive = subprocess.run(["git", "archive", ref], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(tree, filter="data")
    scripts = (tree / "migrations" / "versions").glob("*.py")
    found: list[str] = [name for path in scripts for name in REVISIONS.findall(path.read_text())]
    return max(found)


def interpreter(tree: Path, environment: Path) -> Path:
    """A Python with what the version requires: this one, if that is the same."""
    wanted = tree / REQUIREMENTS
    if wanted.read_bytes() == (ROOT / REQUIREMENTS).read_bytes():
        return Path(sys.executable)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    pip: tuple[str | Path, ...] = (python, "-m", "pip", "install", "--quiet")
    subprocess.run(
        [*pip, "--only-binary=:all:", "--require-hashes", "-r", wanted],
        check=True,
    )
    # The program asks for its own version, which lies beside its packages.
    subprocess.run([*pip, "--no-deps", "--editable", tree], check=True)
    return python


async def run_on(data_dir: Path, python: Path, tree: Path) -> dict[str, Any]:
    """Play the scenario on a fresh directory; it is stopped in good order."""
    settings = ("FLEETBUS_", "NATS_URL", "DATABASE_URL", "PYTHONPATH")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    up = await asyncio.create_subprocess_exec(
        *(python, "-m", "fleetbus", "up", "--data-dir", data_dir),
        cwd=tree,
        env=clean | {"PYTHONPATH": str(tree)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert up.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await up.stdout.readline()).decode()
            if (ready := re.fullmatch(r"ready (nats://\S+)\n", line)) is None:
                raise RuntimeError(f"the version does not start: {line!r}")
            async with speaking(ready[1]) as speaker:
                recorded = await play(speaker)
    finally:
        up.send_signal(signal.SIGTERM)
        status = await up.wait()
    if status != 0:
        raise RuntimeError(f"the version ended with {status}")
    return recorded


def make_small(data_dir: Path) -> None:
    """Leave out what a start makes again, and the log of a database that was shut down."""
    for name in WRITTEN_ANEW:
        (data_dir / name).unlink(missing_ok=True)
    for stale in (data_dir / "nats").glob("*.ports"):
        stale.unlink()
    cluster = data_dir / "postgres"
    (cluster / "postmaster.opts").unlink(missing_ok=True)
    user, drops_root = server_user(cluster), os.geteuid() == 0
    subprocess.run(
        [postgres_install() / "bin" / "pg_resetwal", "-D", cluster],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user.uid if drops_root else None,
        group=user.gid if drops_root else None,
    )


def pack(data_dir: Path, recorded: dict[str, Any], file: Path) -> None:
    """Write all of it into one file; owners are those of whoever unpacks it."""
    with tarfile.open(file, "w:xz", preset=9) as packed:
        packed.add(data_dir, "data", filter=_of_nobody)
        text = json.dumps(recorded, ensure_ascii=False, indent=1).encode()
        about = tarfile.TarInfo(RECORDED)
        about.size = len(text)
        packed.addfile(about, io.BytesIO(text))


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def main(ref: str) -> None:
    with server_directory() as directory:
        tree, data_dir = directory / "tree", directory / "data"
        revision = take_out(ref, tree)
        python = interpreter(tree, directory / "environment")
        recorded = asyncio.run(run_on(data_dir, python, tree))
        made = {
            "revision": revision,
            "postgres": (data_dir / "postgres" / "PG_VERSION").read_text(),
        }
        make_small(data_dir)
        packed = directory / f"{revision}.tar.xz"
        pack(data_dir, made | recorded, packed)
        shutil.move(packed, FOLDER / packed.name)
        size = (FOLDER / packed.name).stat().st_size
    sys.stdout.write(f"{FOLDER / packed.name}: {size / 1024:.0f} KiB\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
