"""The headers of an answer."""

from __future__ import annotations

import re

from bus.running.calls import Answer

MAX_ERROR_LINE = 200
"""Characters of ``Nats-Service-Error``; the whole text is in the body."""


def headers_of(answer: Answer) -> dict[str, str] | None:
    """The headers of an answer, None where it needs none."""
    plain = answer.status == 200 and not (answer.replayed or answer.shortened)
    if plain and answer.position is None:
        return None
    headers: dict[str, str] = {}
    if answer.status != 200:
        headers["Nats-Service-Error-Code"] = str(answer.status)
        headers["Nats-Service-Error"] = one_line(answer.detail)
    if answer.position is not None:
        headers["Fleet-Position"] = str(answer.position)
    if answer.replayed:
        headers["Fleet-Replayed"] = "true"
    if answer.shortened:
        headers["Fleet-Shortened"] = "true"
    return headers


def one_line(text: str) -> str:
    """A text that fits a header: printable, without newlines, bounded."""
    line = re.sub(r"[^\x20-\x7e]+", " ", text.encode("ascii", "replace").decode()).strip()
    return line if len(line) <= MAX_ERROR_LINE else line[: MAX_ERROR_LINE - 3] + "..."
