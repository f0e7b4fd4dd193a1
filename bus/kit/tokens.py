"""Tokens that name a row and prove themselves by a secret: ``fbs_<id>_<secret>``.

Whoever keeps one keeps the hash of its secret. That is 32 random bytes: nobody can try them all, so
a fast hash does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final
from uuid import UUID

SECRET_BYTES: Final = 32

_ID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SHAPE: Final = f"{_ID}_[A-Za-z0-9_-]{{42}}[AEIMQUYcgkosw048]"
"""What comes after the prefix: an id, in its one spelling, and a secret, in its one spelling."""

_NOBODYS: Final = bytes(hashlib.sha256().digest_size)
"""In place of a hash where there is none: of no secret that anybody knows."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Token:
    """A token, of which only the prefix and the id are ever shown."""

    prefix: str
    id: UUID
    secret: bytes

    def __repr__(self) -> str:
        return f"Token({self.prefix}_{self.id}_…)"

    @property
    def text(self) -> str:
        """The token as it travels."""
        secret = base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()
        return f"{self.prefix}_{self.id}_{secret}"


def new_token(prefix: str, id_: UUID) -> Token:
    """A token for a row, with a secret that nobody has had before."""
    return Token(prefix, id_, secrets.token_bytes(SECRET_BYTES))


def parse_token(prefix: str, text: str) -> Token | None:
    """The token that a text is, if it is one with this prefix; each has one spelling."""
    if not re.fullmatch(f"{prefix}_{SHAPE}", text):
        return None
    id_, secret = text[len(prefix) + 1 :].split("_", 1)
    return Token(prefix, UUID(id_), base64.urlsafe_b64decode(f"{secret}="))


def secret_hash(token: Token) -> bytes:
    """What is kept of a token: the SHA-256 of its secret."""
    return hashlib.sha256(token.secret).digest()


def same_secret(token: Token, known: bytes | None) -> bool:
    """Whether this hash is of the token's secret; it takes as long whether there is one or not."""
    same = hmac.compare_digest(secret_hash(token), _NOBODYS if known is None else known)
    return same and known is not None
