"""Plain NATS and JSON: what any version understands, whatever its modules are called."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client

LIMIT = 10.0


@dataclass(frozen=True)
class Answer:
    """A reply as it came."""

    text: str
    headers: dict[str, str]

    @property
    def value(self) -> Any:
        return json.loads(self.text)


class Speaker:
    """Asks operations by their subjects."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, subject: str, body: str, key: str | None = None) -> Answer:
        """Ask with these bytes, and this key; a refusal is an answer, too."""
        headers = {"Nats-Msg-Id": key} if key else None
        reply = await self.client.request(subject, body.encode(), timeout=LIMIT, headers=headers)
        return Answer(reply.data.decode(), dict(reply.headers or {}))

    async def ask(self, subject: str, **fields: Any) -> Any:
        answer = await self.send(subject, json.dumps(fields))
        assert "Nats-Service-Error" not in answer.headers, (subject, answer.text)
        return answer.value

    async def stream(self) -> list[dict[str, Any]]:
        """All that the stream holds, in its order; the relay's fences are left out."""
        js = self.client.jetstream()
        last = (await js.stream_info("EVENTS")).state.last_seq
        found = [await js.get_msg("EVENTS", seq=seq) for seq in range(1, last + 1)]
        return [
            {
                "sequence": message.seq,
                "subject": message.subject,
                "headers": {
                    name: value
                    for name, value in (message.headers or {}).items()
                    if not name.startswith(("Nats-Expected", "Nats-Batch"))
                },
                "data": json.loads(message.data or b"null"),
            }
            for message in found
        ]


@asynccontextmanager
async def speaking(url: str) -> AsyncIterator[Speaker]:
    client = await nats.connect(url)
    try:
        yield Speaker(client)
    finally:
        await client.close()
