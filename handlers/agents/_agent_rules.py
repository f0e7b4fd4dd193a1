"""What agents may become, decided without looking anything up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from bus.contract import Entity
from bus.storage.own.pulse import LEASE_HEARTBEATS
from contracts.agents.agents import Agent, RegisterAgent, ResumeAgent
from contracts.planning.tasks import StaleIncarnation
from handlers.agents.states import AGENT

LIVE = frozenset(AGENT.actions["heartbeat"])
"""The statuses of an agent whose process may be there."""

ENDED: dict[str, Any] = {
    "lease_expires_at": None,
    "suspected_at": None,
    "stalled_at": None,
    "cancel_requested_at": None,
}
"""Of an agent of which nothing is expected, nothing can be missed and nothing is asked."""

_ANOTHER_RUN: dict[str, Any] = {
    "result": None,
    "pending_questions": None,
    "answers": None,
    "progress": None,
    "exit_code": None,
}
"""What a run leaves to be read, until the next one begins."""


def new_agent(command: RegisterAgent, *, name: str, id_: UUID, now: datetime) -> Agent:
    """The agent that a request describes, before it has a task."""
    values: dict[str, Any] = dict.fromkeys(Agent.model_fields.keys() - Entity.model_fields.keys())
    for field in RegisterAgent.model_fields.keys() & values.keys():
        values[field] = getattr(command, field)
    values |= {"name": name, "status": "idle", "task_id": None, "incarnation": 1}
    values["connection_name"] = command.connection_name or str(id_)
    agent = Agent.first(id=id_, now=now, **values)

    return Agent.trusted(agent.__dict__ | {"lease_expires_at": lease(agent, now)})


def lease(agent: Agent, now: datetime) -> datetime:
    """Until when an agent that is heard of now may be silent."""
    return now + timedelta(seconds=LEASE_HEARTBEATS * agent.heartbeat_interval_s)


def is_between_runs(agent: Agent) -> bool:
    """Whether nothing is expected of the agent: it has finished, or it has ended.

    A run lasts from the registration, the resumption or the claim that begins it until the agent
    finishes, stops or crashes.
    """
    return agent.lease_expires_at is None


def beginning(agent: Agent, now: datetime) -> dict[str, Any]:
    """What changes when an agent begins to work. Both of its clocks begin anew.

    What belonged to the run before this one is gone with it.
    """
    another = ENDED | _ANOTHER_RUN if is_between_runs(agent) else {}
    return another | {
        "status": "running",
        "lease_expires_at": lease(agent, now),
        "last_progress_at": now,
        "stalled_at": None,
        "dismissed_at": None,
    }


def start_work(agent: Agent, task_id: UUID, now: datetime) -> Agent:
    """The agent as it works on a task."""
    AGENT.require(agent, "begin")
    return agent.evolve(now, task_id=task_id, **beginning(agent, now))


def resume(command: ResumeAgent, agent: Agent, now: datetime) -> Agent:
    """The agent as it goes on; after its end, as another process of which nothing is known yet."""
    AGENT.require(agent, "resume")
    named = {"session_id", "pid", "host", "connection_name"} & command.model_fields_set
    given = {field: getattr(command, field) for field in named}
    changed = beginning(agent, now) | {"answers": command.answers, "pending_questions": None}
    if agent.status == "waiting_for_input":
        # The process that asked goes on: only itself can say that it is still there.
        changed["lease_expires_at"] = agent.lease_expires_at
    elif agent.status != "idle":
        changed |= _another_process(agent)

    return agent.evolve(now, **changed | given)


def require_live(agent: Agent, incarnation: int | None, action: str) -> None:
    """Refuse who acts in the name of an agent that has ended, or that is another process by now."""
    require_incarnation(agent, incarnation)
    AGENT.require(agent, action)


def require_incarnation(agent: Agent, incarnation: int | None) -> None:
    """Refuse who speaks for an agent that is another process by now."""
    if incarnation is not None and incarnation != agent.incarnation:
        raise StaleIncarnation(
            id=agent.id,
            incarnation=incarnation,
            current_incarnation=agent.incarnation,
            agent_status=agent.status,
        )


def _another_process(agent: Agent) -> dict[str, Any]:
    return {
        "incarnation": agent.incarnation + 1,
        "pid": None,
        "host": None,
        "connection_name": str(agent.id),
    }
