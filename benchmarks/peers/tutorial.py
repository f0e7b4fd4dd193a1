"""The tutorial way: FastStream with ``max_workers``, a SQLAlchemy session per message."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from faststream.nats import NatsBroker

from benchmarks.peers import _orm, _replies, _requests
from benchmarks.peers._serving import NATS_URL, QUEUE, serve
from benchmarks.peers._sessions import engine

F = TypeVar("F", bound=Callable[..., Any])

broker = NatsBroker(NATS_URL, logger=None)


def operation(subject: str) -> Callable[[F], F]:
    subscriber: Any = broker.subscriber(subject, queue=QUEUE, max_workers=64)
    return subscriber  # type: ignore[no-any-return]  # it is a decorator


@operation("db.tasks.complete")
async def complete(body: _requests.Complete) -> _replies.Task:
    return await _orm.complete(body.id, body.summary)


@operation("db.tasks.create")
async def create(body: _requests.Create) -> _replies.Task:
    return await _orm.create(body)


@operation("db.tasks.claim")
async def claim(body: _requests.Claim) -> _replies.ClaimedTasks:
    return await _orm.claim(body.agent_id)


@operation("db.log_chunks.append")
async def append(body: _requests.Append) -> _replies.NewLogChunk:
    return await _orm.append(body.agent_id, body.content)


@operation("db.tasks.get")
async def get(body: _requests.Get) -> _replies.Task:
    return await _orm.get(body.id)


@operation("db.tasks.list")
async def page(body: _requests.List) -> _replies.Tasks:
    return await _orm.page(body.limit)


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    async with broker:
        await broker.start()
        yield
    await engine.dispose()


if __name__ == "__main__":
    serve(service)
