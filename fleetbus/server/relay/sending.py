"""Many messages at once, as NATS protocol text.

``Client.publish`` checks and encodes each header of each message by itself, which is most of what
relaying a backlog costs. The header names here are our own, so only values need a look.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, MaxPayloadError

from fleetbus.server.relay.events import Message, header_lines

_AT_ONCE: Final = 400
_BYTES_AT_ONCE: Final = 1024 * 1024


async def send(client: Client, messages: Iterable[Message]) -> None:
    """Send messages that nobody answers. Without a connection it refuses, it never buffers."""
    limit = client.max_payload
    for commands in _joined(_command(message, limit) for message in messages):
        must_be_connected(client)
        await client._send_command(commands)  # noqa: SLF001  see above; held by a test
        # What is large is written before more of it is made.
        large = len(commands) >= _BYTES_AT_ONCE
        await client._flush_pending(force_flush=large)  # noqa: SLF001  the same


def _joined(commands: Iterable[bytes]) -> Iterator[bytes]:
    taken: list[bytes] = []
    size = 0
    for command in commands:
        taken.append(command)
        size += len(command)
        if len(taken) == _AT_ONCE or size >= _BYTES_AT_ONCE:
            yield b"".join(taken)
            taken, size = [], 0
    if taken:
        yield b"".join(taken)


def must_be_connected(client: Client) -> None:
    """Refuse instead of buffering: what the client sends after a reconnect would be stale."""
    if not client.is_connected:
        raise ConnectionClosedError


def _command(message: Message, limit: int) -> bytes:
    """The message as the protocol's HPUB: its length with and without headers goes before it."""
    headers = "\r\n".join(("NATS/1.0", *header_lines(message.headers), "", "")).encode()
    size = len(headers) + len(message.body)
    if size > limit:
        raise MaxPayloadError
    head = f"HPUB {message.subject} {len(headers)} {size}\r\n".encode()
    return b"%b%b%b\r\n" % (head, headers, message.body)
