"""The NATS protocol where requests come in and answers go out by the thousand.

nats-py reads header names a character at a time and writes each header through two regular
expressions: right for any header, and some 3 µs of each request. The rest of its client is kept.
The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from typing import Final

from fleetbus.bus.calls import Answer
from fleetbus.wire.headers import headers_of

BLANKS: Final = " \t\n\r\v\f"
"""What surrounds a value and is none of it; other blanks of Unicode make another value."""


def parse_header_lines(raw: bytes) -> dict[str, str]:
    """The lines of a header block, as nats-py's client understands them.

    What is not UTF-8 in a value becomes U+FFFD. A line without a colon is skipped, and one whose
    name has a blank in it or anything that is not ASCII. Of a name that comes twice the last holds.
    """
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            continue
        name = name.strip(BLANKS)
        if name.isascii() and (not name or name.split() == [name]):
            found[name] = value.strip(BLANKS)
    return found


def frame(subject: str, answer: Answer) -> bytes:
    """An answer as the command that publishes it; the subject came from the server, or is ours."""
    body = answer.body
    headers = headers_of(answer)
    if headers is None:
        return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    sizes = (len(block), len(block) + len(body))
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject.encode(), *sizes, block, body)
