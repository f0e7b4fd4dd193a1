"""By hand with what fleetbus promises: validation, state check, idempotency and outbox rows."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from benchmarks.peers import _requests, _statements
from benchmarks.peers._serving import Refused, connections, serve, task_per_message

LOCKED = f"""SELECT status, attempt, s.* FROM planning.tasks LEFT JOIN ({_statements.STORED}) AS s
             ON true WHERE id = $2 FOR NO KEY UPDATE OF tasks"""
QUERIES: dict[str, Any] = {
    "db.tasks.get": (_requests.Get, _statements.GET),
    "db.tasks.list": (_requests.List, _statements.LIST),
}
COMMANDS: dict[str, Any] = {
    "db.tasks.complete": (_requests.Complete, _statements.complete(key=3), ("id", "summary")),
    "db.tasks.create": (_requests.Create, _statements.create(key=4), _requests.CREATE),
    "db.tasks.claim": (_requests.Claim, _statements.claim(key=2), ("agent_id",)),
    "db.log_chunks.append": (_requests.Append, _statements.append(key=3), ("agent_id", "content")),
}


def found(value: Any) -> Any:
    if value is None:
        raise Refused(404, "task_not_found")
    return value


async def query(db: Any, message: Msg) -> str:
    model, statement = QUERIES[message.subject]
    values = dict(model.model_validate_json(message.data)).values()
    return str(found(await db.fetchval(statement, *values)))


async def command(db: Any, message: Msg) -> str:
    model, statement, names = COMMANDS[message.subject]
    request = model.model_validate_json(message.data)
    key = (message.headers or {})["Nats-Msg-Id"]
    fingerprint = hashlib.blake2b(message.data, digest_size=16).hexdigest()
    async with db.transaction():
        if model is _requests.Complete:
            row = found(await db.fetchrow(LOCKED, key, request.id))
        else:
            row = await db.fetchrow(_statements.STORED, key)
        if row and row["reply"] is not None:
            if row["fingerprint"] != fingerprint:
                raise Refused(409, "idempotency_key_reused")
            return str(row["reply"])
        if row and (row["status"], row["attempt"]) != ("in_progress", request.attempt):
            raise Refused(409, "invalid_transition")
        values = [getattr(request, name) for name in names]
        return await db.fetchval(statement, *values, key, fingerprint) or '{"tasks":[]}'


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    async def answer(client: Client, message: Msg) -> None:
        run, headers = query if message.subject in QUERIES else command, None
        try:
            async with pool.acquire() as db:
                reply = await run(db, message)
        except (Refused, ValidationError) as error:
            status, kind = error.args if isinstance(error, Refused) else (400, "invalid")
            reply = f'{{"type":"{kind}","status":{status}}}'
            headers = {"Nats-Service-Error-Code": str(status), "Nats-Service-Error": kind}
        await client.publish(message.reply, reply.encode(), headers=headers)

    async with connections() as pool, task_per_message((*QUERIES, *COMMANDS), answer):
        yield


if __name__ == "__main__":
    serve(service)
