"""Where the keys for credentials come from: the environment, or a file that nobody else reads."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

from bus.storage.sealed import KEY_BYTES, KeyRing
from fleetbus.server.config import Settings

log = logging.getLogger("fleetbus.keys")

NAME = "first"
"""The id of the key that is made where there is none."""


def key_ring(settings: Settings) -> KeyRing:
    """The keys that the settings name. What is wrong with them does not stop the process."""
    if settings.credentials_keys:
        ring = KeyRing.parse(settings.credentials_keys)
    elif settings.credentials_key_file is not None:
        ring = _from_file(settings.credentials_key_file)
    else:
        return KeyRing.parse("")
    if ring.problem:
        log.error("credentials cannot be encrypted or decrypted: %s", ring.problem)
    return ring


def make_key_file(file: Path) -> Path:
    """Make a file with a fresh key, mode 0600, unless there is one."""
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{NAME}:{key}\n")
            opened.flush()
            os.fsync(opened.fileno())
    return file


def _from_file(file: Path) -> KeyRing:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return KeyRing({}, f"the key file is open to others (mode {mode:04o}): chmod 600 it")
        return KeyRing.parse(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        return KeyRing({}, f"the key file cannot be read: {type(error).__name__}")
