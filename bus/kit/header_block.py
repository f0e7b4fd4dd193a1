"""The header block of a message, whatever bytes it is made of.

The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re
from typing import Final

BLANKS: Final = " \t\n\r\v\f"
"""What surrounds a value and is none of it; other blanks of Unicode make another value."""

LONGEST: Final = 64 * 1024
"""Bytes of headers that are read; to take more of them apart would keep others waiting."""

STATUS: Final = "Status"
DESCRIPTION: Final = "Description"
"""Where nats-py looks for the status of a message of the server's own."""

_FIRST_LINE: Final = b"NATS/1.0\r\n"
_STATUS_LINE: Final = re.compile(rb"NATS/1\.0[ \t]+([0-9]{3})(?:[ \t]+([^\r\n]*))?[ \t]*\r\n")


class UnreadableHeaders(dict[str, str]):
    """The headers of a block that is partly none: those that could be read, if any."""

    def __bool__(self) -> bool:
        return True


def read_block(block: bytes) -> dict[str, str] | None:
    """The headers of a message, None where it has none. It takes any bytes and raises nothing.

    A status line gives the headers ``Status`` and ``Description``, as nats-py has it. What cannot
    be read is left out, and then they are ``UnreadableHeaders``.
    """
    if len(block) > LONGEST:
        return UnreadableHeaders()
    if block.startswith(_FIRST_LINE):
        return parse_header_lines(block[len(_FIRST_LINE) :]) or None
    found = _STATUS_LINE.match(block)
    if found is None:
        return UnreadableHeaders()
    headers = {STATUS: found[1].decode()}
    if described := (found[2] or b"").decode("utf-8", "replace").strip(BLANKS):
        headers[DESCRIPTION] = described
    lines = parse_header_lines(block[found.end() :])
    if isinstance(lines, UnreadableHeaders):
        return UnreadableHeaders({**headers, **lines})
    headers.update(lines)
    return headers


def parse_header_lines(raw: bytes) -> dict[str, str]:
    """The lines of a header block, as nats-py's client understands them.

    What is not UTF-8 in a value becomes U+FFFD. A line without a colon is skipped, and one whose
    name has a blank in it or anything that is not ASCII: then they are ``UnreadableHeaders``. Of
    a name that comes twice the last holds.
    """
    found: dict[str, str] = {}
    unreadable = False
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(":")
        name = name.strip(BLANKS)
        if colon and name.isascii() and (not name or name.split() == [name]):
            found[name] = value.strip(BLANKS)
        else:
            unreadable = True
    return UnreadableHeaders(found) if unreadable else found
