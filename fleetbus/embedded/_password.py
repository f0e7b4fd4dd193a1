"""The password of the role that the service has: random, in a file that its owner alone can read.

The server is told a verifier, which is not the password. As the password cannot be guessed, one
round of hashing is as good as thousands.

Source: https://www.rfc-editor.org/rfc/rfc5803 and RFC 7677 (SCRAM-SHA-256).
"""

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

ROUNDS = 1


def new_password() -> str:
    return secrets.token_urlsafe(32)


def read_password(file: Path) -> str | None:
    """The password in a file, None where there is none for us."""
    with suppress(OSError):
        return file.read_text().strip() or None
    return None


def write_password(file: Path, password: str) -> None:
    """Write the file whole, or not at all."""
    unfinished = file.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(password + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.rename(file)


def verifier(password: str) -> str:
    """What Postgres stores of a password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ROUNDS, *texts)
