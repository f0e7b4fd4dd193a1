"""Many messages at once, as NATS protocol text.

``Client.publish`` checks and encodes each header of each message by itself, which is most of what
relaying a backlog costs. The header names here are our own, so only values need a look.
"""

from collections.abc import Iterable
from itertools import islice

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, MaxPayloadError

from fleetbus.relay.events import Message

_AT_ONCE = 400


async def send(client: Client, messages: Iterable[Message]) -> None:
    """Send messages that nobody answers. Without a connection it refuses, it never buffers."""
    limit = client.max_payload
    left = iter(messages)
    while sending := list(islice(left, _AT_ONCE)):
        commands = b"".join(_command(message, limit) for message in sending)
        must_be_connected(client)
        await client._send_command(commands)  # noqa: SLF001  see above; held by a test
        await client._flush_pending()  # noqa: SLF001  the same


def must_be_connected(client: Client) -> None:
    """Refuse instead of buffering: what the client sends after a reconnect would be stale."""
    if not client.is_connected:
        raise ConnectionClosedError


def _command(message: Message, limit: int) -> bytes:
    """The message as the protocol's HPUB: its length with and without headers goes before it."""
    values = [_one_line(value) for value in message.headers.values()]
    lines = [f"{name}: {value}" for name, value in zip(message.headers, values, strict=True)]
    headers = "\r\n".join(("NATS/1.0", *lines, "", "")).encode()
    size = len(headers) + len(message.body)
    if size > limit:
        raise MaxPayloadError
    head = f"HPUB {message.subject} {len(headers)} {size}\r\n".encode()
    return b"%b%b%b\r\n" % (head, headers, message.body)


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value:
        return value.replace("\r", " ").replace("\n", " ")
    return value
