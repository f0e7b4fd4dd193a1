"""By hand: nats-py + asyncpg, a task per message, one statement per request.

No validation but what Postgres does, no idempotency keys, no errors by name.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.peers import _statements
from benchmarks.peers._serving import connections, serve, task_per_message

OPERATIONS = {
    "db.tasks.complete": (_statements.complete(), ("id", "summary")),
    "db.tasks.create": (_statements.create(), ("name", "description", "priority")),
    "db.tasks.claim": (_statements.claim(), ("agent_id",)),
    "db.log_chunks.append": (_statements.append(), ("agent_id", "content")),
    "db.tasks.get": (_statements.GET, ("id",)),
    "db.tasks.list": (_statements.LIST, ("limit",)),
}


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    async def answer(client: Client, message: Msg) -> None:
        statement, names = OPERATIONS[message.subject]
        request = json.loads(message.data)
        try:
            reply = await pool.fetchval(statement, *(request[name] for name in names))
        except asyncpg.PostgresError as error:
            reply = json.dumps({"error": str(error)})
        await client.publish(message.reply, (reply or '{"error": "not found"}').encode())

    async with connections() as pool, task_per_message(OPERATIONS, answer):
        yield


if __name__ == "__main__":
    serve(service)
