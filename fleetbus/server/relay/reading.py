"""Single messages of the stream, read and removed, whatever is in them.

They come as JSON with headers in base64, from the server that leads the stream: what nobody but we
should have written is never parsed by the client library, and no replica is behind.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.js.errors import APIError

_AT_ONCE: Final = 200
_TIMEOUT: Final = 5.0
_FEW: Final = 32
"""Messages that are read at once: each may be as large as a message can be."""
_NO_MESSAGE: Final = 10037
_NO_SEQUENCE: Final = 10043
_NOT_DELETED: Final = 10057
_FIRST_LINE: Final = "NATS/1.0"


@dataclass(frozen=True, slots=True)
class Found:
    """A message of the stream."""

    sequence: int
    subject: str
    headers: dict[str, str] | None
    """None if they are not what a client writes: unreadable, or a name comes twice."""
    body: bytes | None
    """None where it was not read."""


async def found_between(
    client: Client, stream: str, first: int, last: int
) -> AsyncGenerator[list[Found]]:
    """The messages with these sequences, both included, in pages."""
    for start in range(first, last + 1, _FEW):
        sequences = range(start, min(last, start + _FEW - 1) + 1)
        read = await asyncio.gather(*(found_at(client, stream, n) for n in sequences))
        yield [found for found in read if found is not None]


async def found_at(client: Client, stream: str, sequence: int) -> Found | None:
    """The message with this sequence, None if it is not there any more."""
    return await _get(client, stream, {"seq": sequence})


async def next_on(client: Client, stream: str, subject: str, sequence: int) -> Found | None:
    """The first message on a subject with this sequence or a later one."""
    return await _get(client, stream, {"seq": sequence, "next_by_subj": subject})


async def remove(client: Client, stream: str, sequences: Sequence[int]) -> int:
    """Delete messages; returns how many of them were still there.

    They are not overwritten: nobody's secret is in them that was not published already.
    """
    removed = 0
    for start in range(0, len(sequences), _AT_ONCE):
        some = sequences[start : start + _AT_ONCE]
        removed += sum(await asyncio.gather(*(_delete(client, stream, n) for n in some)))
    return removed


def read_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a block; None if it is not one as a client writes them."""
    try:
        first, *lines = block.decode().split("\r\n")
    except UnicodeDecodeError:
        return None
    if not block:
        return {}
    if first != _FIRST_LINE or lines[-2:] != ["", ""]:
        return None
    headers: dict[str, str] = {}
    for line in lines[:-2]:
        name, colon, value = line.partition(":")
        if not colon or not name or name in headers:
            return None
        headers[name] = value.strip()
    return headers


async def _get(client: Client, stream: str, wanted: dict[str, Any]) -> Found | None:
    answer = await _ask(client, f"$JS.API.STREAM.MSG.GET.{stream}", wanted)
    if (error := answer.get("error")) is not None:
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise APIError.from_error(error)
    message = answer["message"]
    return Found(
        int(message["seq"]),
        str(message["subject"]),
        read_headers(base64.b64decode(message.get("hdrs", ""))),
        base64.b64decode(message.get("data", "")),
    )


async def _delete(client: Client, stream: str, sequence: int) -> bool:
    wanted = {"seq": sequence, "no_erase": True}
    answer = await _ask(client, f"$JS.API.STREAM.MSG.DELETE.{stream}", wanted)
    if (error := answer.get("error")) is None:
        return True
    if error.get("err_code") in {_NO_MESSAGE, _NO_SEQUENCE, _NOT_DELETED} and not await found_at(
        client, stream, sequence
    ):
        return False
    raise APIError.from_error(error)


async def _ask(client: Client, subject: str, wanted: dict[str, Any]) -> dict[str, Any]:
    reply = await client.request(subject, json.dumps(wanted).encode(), timeout=_TIMEOUT)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer
