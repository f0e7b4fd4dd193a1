"""The NATS protocol where answers go out by the thousand.

nats-py writes each header through two regular expressions: right for any header, and some 3 µs of
each request. The rest of its client is kept.
The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from bus.running.calls import Answer
from fleetbus.server.wire.headers import headers_of


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
