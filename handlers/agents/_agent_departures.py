"""An agent that works no more, and what becomes of the tasks that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bus.handling import Decision
from contracts.agents.agents import Agent
from contracts.planning.tasks import Task


@dataclass(frozen=True)
class Departure:
    """What was decided of an agent, and of each task that it had in progress."""

    agent: Decision[Agent]
    tasks: Sequence[Decision[Task]]

    @property
    def decisions(self) -> list[Decision[Any]]:
        """All of them: the events of the agent come before those of its tasks."""
        return [self.agent, *self.tasks]
