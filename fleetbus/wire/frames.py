"""The NATS protocol where requests come in and answers go out by the thousand.

nats-py reads headers a character at a time and writes them through regular expressions, which is
right for any header and costs a tenth of a request. Here the rest of nats-py's client is kept.
The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from fleetbus.bus.calls import Answer
from fleetbus.wire.headers import headers_of


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
        name = name.strip()
        if name.isascii() and (name.isidentifier() or len(name.split()) < 2):
            found[name] = value.strip()
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
