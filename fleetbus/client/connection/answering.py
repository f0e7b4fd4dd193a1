"""Where an answer may go.

The sender of a request names the subject of the answer, and whoever answers lends it the own
permissions: so an answer goes to inboxes, and nowhere else.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from bus.kit.logs import limited, shown

log = logging.getLogger("fleetbus.wire")

INBOXES: Final = ("_INBOX", "_R_", "_GR_")
"""The inboxes of clients, and what the server makes of them behind the import of an account."""

LONGEST: Final = 2048
"""Characters of a reply subject."""

NEVER: Final = ("$JS", "$SYS", "$SRV", "$KV", "$O", "_fleetbus", "db", "events")
"""What nobody can make a place for answers: there they would do or say something."""

_TOKEN: Final = r"[^\s\x00-\x1f\x7f-\x9f.*>\ufffd]+"  # noqa: S105  a part of a subject
_PLAIN_TOKEN: Final = r"[!-)+\-/-=?-~]+"  # noqa: S105  as above


class ReplyRule:
    """Whether an answer may go to a subject; and how often it was not."""

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        given = (*INBOXES, *(prefix.rstrip(".") for prefix in prefixes))
        beginnings = "|".join(re.escape(prefix) for prefix in given)
        # Nearly all are plain, and half as dear to look at.
        self._plain = re.compile(rf"(?:{beginnings})(?:\.{_PLAIN_TOKEN})+").fullmatch
        self._any = re.compile(rf"(?:{beginnings})(?:\.{_TOKEN})+").fullmatch
        self.refused: Counter[str] = Counter()
        """Requests that named another subject, by the subject that they were sent to."""

    def allows(self, reply: str) -> bool:
        """Whether this subject lies under an inbox or a prefix that the operator has added."""
        return len(reply) <= LONGEST and (self._plain(reply) or self._any(reply)) is not None

    def refuse(self, subject: str, reply: str) -> None:
        """Count and log a request that is left alone. The subject is one of ours."""
        self.refused[subject] += 1
        limited(
            log,
            logging.WARNING,
            "reply subject",
            "a request to %s is not executed: no answer may go to %s",
            subject,
            shown(reply),
        )


def checked_prefix(prefix: str) -> str:
    """A prefix that an operator adds. Raises ``ValueError`` where answers would do harm."""
    tokens = prefix.removesuffix(".").split(".")
    if not all(re.fullmatch(_TOKEN, token) for token in tokens):
        raise ValueError(f"{prefix!r} is no subject without wildcards")
    if tokens[0] in NEVER:
        raise ValueError(f"answers cannot go to {prefix!r}")
    return ".".join(tokens)
