"""What tests of agents start from, and time that passes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from contracts.agents.agents import Agent, AskInput, RegisterAgent, StopAgent
from contracts.planning.tasks import ClaimTasks, CreateTask, Task
from fleetbus.client import Bus
from persistence.agents.tables import account

QUESTIONS: list[Any] = [{"question": "Which database?"}]


async def an_agent(bus: Bus, **fields: Any) -> Agent:
    return await bus.call(RegisterAgent(**fields))


async def a_task(bus: Bus, name: str = "a task") -> Task:
    return await bus.call(CreateTask(name=name))


async def claim(bus: Bus, agent: Agent, limit: int = 1) -> list[Task]:
    found = await bus.call(ClaimTasks(agent_id=str(agent.id), limit=limit, lease_seconds=3600))
    return [one.task for one in found.tasks]


async def a_working_agent(bus: Bus, tasks: int = 1, **fields: Any) -> tuple[Agent, list[Task]]:
    """An agent that has claimed new tasks, and these."""
    for number in range(tasks):
        await a_task(bus, f"task {number}")
    agent = await an_agent(bus, **fields)
    return agent, await claim(bus, agent, tasks)


async def add_account(db: AsyncConnection, email: str = "fleet@example.com", **fields: Any) -> UUID:
    values = {"id": uuid7(), "email": email, **fields}
    await db.execute(insert(account).values(values))
    return UUID(str(values["id"]))


async def end(bus: Bus, agent: Agent) -> Agent:
    return await bus.call(StopAgent(id=agent.id, reason="user_requested"))


async def ask(bus: Bus, agent: Agent, **fields: Any) -> Agent:
    return await bus.call(AskInput(id=agent.id, questions=QUESTIONS, **fields))


async def later(db: AsyncConnection, by: timedelta, *columns: str) -> None:
    """Let time pass for agents: what these columns hold is longer ago, or comes nearer."""
    moved = ", ".join(f"{column} = {column} - CAST(:by AS interval)" for column in columns)
    await db.execute(text(f"UPDATE agents.agents SET {moved}"), {"by": by})


async def task_row(db: AsyncConnection, id_: UUID) -> Any:
    query = text("SELECT * FROM planning.tasks WHERE id = :id")
    return (await db.execute(query, {"id": id_})).one()
