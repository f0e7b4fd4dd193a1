"""An agent that works no more, and what becomes of the tasks that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Event
from bus.handling import Decision, Emit
from bus.storage import save
from contracts.agents.agents import Agent
from contracts.planning.tasks import Task


@dataclass(frozen=True)
class Departure:
    """What was decided of an agent, and of each task that it had in progress."""

    agent: Decision[Agent]
    tasks: Sequence[Decision[Task]]

    @property
    def events(self) -> list[Event]:
        """What it tells: of the agent before its tasks."""
        return [*self.agent.events, *(event for task in self.tasks for event in task.events)]


async def carry_out(departures: Sequence[Departure], *, db: AsyncConnection, emit: Emit) -> None:
    """Write down and tell what became of agents that are locked with their tasks."""
    await save(db, [task.entity for departure in departures for task in departure.tasks])
    await save(db, [departure.agent.entity for departure in departures])

    for departure in departures:
        for event in departure.events:
            emit(event)
