"""Before anything is measured: does the contender do the work, and the same work as the others?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import nats

from benchmarks.contenders import Running
from benchmarks.servers import Servers
from benchmarks.workloads import PAGE, WORKLOADS, Request, Tasks, append, complete

TIMEOUT = 10.0
ROWS = 100

APPEND = "db.log_chunks.append"

_CHUNK = """
SELECT chunk.*, agent.name FROM agents.log_chunks AS chunk
JOIN agents.agents AS agent ON agent.id = agent_id WHERE chunk.id = $1
"""
_EVENTS = "SELECT count(*) FROM bus.outbox"
_CHUNKS = "SELECT count(*) FROM agents.log_chunks"

EVENTS = {
    "db.tasks.complete": "task.completed",
    "db.tasks.create": "task.created",
    "db.tasks.claim": "task.claimed",
}


class NotTheSameWork(Exception):
    """A contender leaves something out; the message says what."""


@dataclass(frozen=True)
class Answer:
    """What came back: the body, and whether it is a refusal."""

    body: Any
    refused: bool
    offered: bool = True


async def check(running: Running, workload_name: str, servers: Servers) -> str:
    """Send each kind of request once and look at what it did; returns why it cannot be measured."""
    workload = WORKLOADS[workload_name]
    prefix = await servers.prepare(workload, ROWS)
    wanted = set(workload.subjects)
    for number, request in enumerate(workload.requests(Tasks(prefix, ROWS))):
        if request.subject not in wanted:
            continue
        wanted.discard(request.subject)
        answer = await ask(running, request, f"check-{number}")
        if not answer.offered:
            return f"{request.subject} is not there"
        if running.contender.changes:
            await _check_work(running, request, answer, servers)
        if not wanted:
            break
    if not running.contender.keeps_promises:
        return ""
    if "db.tasks.complete" in workload.subjects:
        await _check_promises(running, Tasks(prefix, ROWS), servers)
    if APPEND in workload.subjects:
        await _check_promises_of_logs(running, servers)
    return ""


async def ask(running: Running, request: Request, key: str) -> Answer:
    """One request and its answer."""
    if running.contender.transport == "http":
        return await _ask_over_http(running.url, request)
    client = await nats.connect(running.url)
    try:
        message = await client.request(
            request.subject, request.body, timeout=TIMEOUT, headers={"Nats-Msg-Id": key}
        )
    except nats.errors.NoRespondersError:
        return Answer(None, refused=True, offered=False)
    finally:
        await client.close()
    body = json.loads(message.data)
    refused = "Nats-Service-Error-Code" in (message.headers or {}) or "error" in body
    return Answer(body, refused)


async def _ask_over_http(url: str, request: Request) -> Answer:
    async with (
        aiohttp.ClientSession(url) as session,
        session.request(
            request.method,
            request.path,
            data=request.body if request.method == "POST" else None,
            headers={"Content-Type": "application/json"},
        ) as response,
    ):
        offered = response.status != 404
        return Answer(await response.json(), response.status >= 300, offered)


async def _check_work(running: Running, request: Request, answer: Answer, servers: Servers) -> None:
    def require(condition: object, what: str) -> None:
        if not condition:
            raise NotTheSameWork(f"{running.contender.name}, {request.subject}: {what}")

    require(not answer.refused, f"it was refused: {answer.body}")
    if request.subject == "db.tasks.list":
        require(len(answer.body["items"]) == PAGE, "the page is not full")
        require("description" in answer.body["items"][0], "the page holds no tasks")
        return
    if request.subject == APPEND:
        chunk = await servers.db.fetchrow(_CHUNK, answer.body["id"])
        sent = json.loads(request.body)
        require(chunk is not None, "there is no such row")
        require(chunk["content"] == sent["content"], "the row has another content")
        require(str(chunk["agent_id"]) == sent["agent_id"], "the row is another agent's")
        require(chunk["agent_name"] == chunk["name"], "the row does not name the agent")
        require("created_at" in answer.body, "the reply does not say when")
        require(await servers.db.fetchval(_EVENTS) == 0, "a log chunk tells no event")
        return
    claimed = request.subject == "db.tasks.claim"
    task = answer.body["tasks"][0]["task"] if claimed else answer.body
    require("description" in task and "updated_at" in task, "the reply is not the task")
    row = await servers.db.fetchrow("SELECT * FROM planning.tasks WHERE id = $1", task["id"])
    require(row is not None, "there is no such row")
    require(row["status"] == task["status"], "the row has another status than the reply")
    require(row["version"] == task["version"], "the row has another version than the reply")
    if request.subject in EVENTS:
        told = await servers.db.fetch(
            "SELECT type, data FROM bus.outbox WHERE entity_id = $1", task["id"]
        )
        require([event["type"] for event in told] == [EVENTS[request.subject]], "no outbox row")
        data = json.loads(told[0]["data"])["task"]
        require(data["status"] == task["status"], "the event is not what the row is")
    if request.subject == "db.tasks.complete":
        require(row["status"] == "completed" and row["summary"], "the task is not completed")
        require(row["version"] == 2 and row["claimed_by"] is None, "the row is half changed")
    if claimed:
        require(row["status"] == "in_progress" and row["attempt"] == 1, "the task is not claimed")
        require(row["lease_expires_at"] is not None, "the claim has no lease")


async def _check_promises(running: Running, tasks: Tasks, servers: Servers) -> None:
    """A repeated key does nothing twice, nonsense is refused, and so is what comes too late."""
    request = complete(tasks.id(ROWS - 1))
    first = await ask(running, request, "promise")
    again = await ask(running, request, "promise")
    other = await ask(running, request, "promise-2")
    wrong = await ask(running, Request(request.subject, b'{"id": 7}', "", ""), "promise-3")
    events = await servers.db.fetchval(
        "SELECT count(*) FROM bus.outbox WHERE entity_id = $1", first.body["id"]
    )
    kept = not first.refused and first == again and other.refused and wrong.refused and events == 1
    if not kept:
        raise NotTheSameWork(f"{running.contender.name} does not keep its promises")


async def _check_promises_of_logs(running: Running, servers: Servers) -> None:
    """A repeated key keeps nothing twice, and nonsense is refused."""
    request = append(ROWS)
    before = await servers.db.fetchval(_CHUNKS)
    first = await ask(running, request, "promise")
    again = await ask(running, request, "promise")
    wrong = await ask(running, Request(request.subject, b'{"agent_id": 7}', "", ""), "promise-2")
    kept = await servers.db.fetchval(_CHUNKS) - before
    if first.refused or first != again or not wrong.refused or kept != 1:
        raise NotTheSameWork(f"{running.contender.name} does not keep its promises of logs")
