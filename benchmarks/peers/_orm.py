"""What the peers with an ORM do in the database: a session and a transaction per request."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.peers import _replies, _requests
from benchmarks.peers._serving import Refused
from benchmarks.peers._sessions import OutboxRow, sessions
from bus.kit.ids import uuid7
from persistence.agents.tables import Agent, LogChunk
from persistence.planning.tables import Task
from persistence.planning.task_readiness import READY


async def complete(id_: UUID, summary: str | None) -> _replies.Task:
    async with sessions.begin() as session:
        task = await session.get(Task, id_, with_for_update=True)
        if task is None or task.status != "in_progress":
            raise Refused(409, "not a task in progress")
        task.status, task.summary = "completed", summary
        task.claimed_by = task.lease_expires_at = None
        return _changed(session, task, "task.completed")


async def create(body: _requests.Create) -> _replies.Task:
    async with sessions.begin() as session:
        task = Task(id=uuid7(), **body.model_dump())
        session.add(task)
        await session.flush()
        return _tell(session, task, "task.created")


async def claim(agent_id: str) -> _replies.ClaimedTasks:
    ready = select(Task).where(READY, Task.category.in_(("execute", "verify", "merge", "review")))
    first = ready.order_by(Task.priority_rank, Task.position, Task.created_at, Task.id).limit(1)
    async with sessions.begin() as session:
        task = await session.scalar(first.with_for_update(of=Task, skip_locked=True))
        claimed = []
        if task is not None:
            task.status, task.claimed_by, task.attempt = "in_progress", agent_id, task.attempt + 1
            task.lease_expires_at = datetime.now(UTC) + timedelta(minutes=5)
            claimed = [_replies.ClaimedTask(task=_changed(session, task, "task.claimed"))]
        return _replies.ClaimedTasks(tasks=claimed)


async def append(agent_id: UUID, content: str) -> _replies.NewLogChunk:
    async with sessions.begin() as session:
        name = await session.scalar(select(Agent.name).where(Agent.id == agent_id))
        chunk = LogChunk(id=uuid7(), agent_id=agent_id, agent_name=name, content=content)
        session.add(chunk)
        await session.flush()
        return _replies.NewLogChunk.model_validate(chunk)


async def get(id_: UUID) -> _replies.Task:
    async with sessions() as session:
        return _replies.Task.model_validate(await session.get_one(Task, id_))


async def page(limit: int) -> _replies.Tasks:
    async with sessions() as session:
        rows = await session.scalars(select(Task).order_by(Task.created_at, Task.id).limit(limit))
        return _replies.Tasks(items=[_replies.Task.model_validate(row) for row in rows])


def _changed(session: AsyncSession, task: Task, event: str) -> _replies.Task:
    task.version, task.updated_at = task.version + 1, datetime.now(UTC)
    return _tell(session, task, event)


def _tell(session: AsyncSession, task: Task, event: str) -> _replies.Task:
    reply = _replies.Task.model_validate(task)
    data = {"task": reply.model_dump(mode="json")}
    session.add(OutboxRow(event_id=uuid7(), type=event, entity_id=str(task.id), data=data))
    return reply
