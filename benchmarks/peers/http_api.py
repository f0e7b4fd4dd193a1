"""Over HTTP: FastAPI on uvicorn (uvloop, httptools), a SQLAlchemy session per request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated
from uuid import UUID

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse

from benchmarks.peers import _orm, _replies, _requests
from benchmarks.peers._serving import PORT, Refused, serve
from benchmarks.peers._sessions import engine

app = FastAPI()


@app.exception_handler(Refused)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    status, detail = error.args
    return JSONResponse({"detail": detail}, status_code=status)


@app.post("/tasks/{id_}/complete")
async def complete(id_: UUID, body: _requests.Complete) -> _replies.Task:
    return await _orm.complete(id_, body.summary)


@app.post("/tasks/claim")
async def claim(body: _requests.Claim) -> _replies.ClaimedTasks:
    return await _orm.claim(body.agent_id)


@app.post("/tasks")
async def create(body: _requests.Create) -> _replies.Task:
    return await _orm.create(body)


@app.post("/agents/{agent_id}/log_chunks")
async def append(agent_id: UUID, body: _requests.Append) -> _replies.NewLogChunk:
    return await _orm.append(agent_id, body.content)


@app.get("/tasks/{id_}")
async def get(id_: UUID) -> _replies.Task:
    return await _orm.get(id_)


@app.get("/tasks")
async def page(limit: Annotated[int, Query(ge=1, le=500)] = 50) -> _replies.Tasks:
    return await _orm.page(limit)


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    config = uvicorn.Config(app, "127.0.0.1", PORT, access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving
    await engine.dispose()


if __name__ == "__main__":
    serve(service)
