"""How an agent starts: as a new one, or as the next incarnation of one that ended."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from bus.contract.errors import AlreadyExists, InvalidTransition
from contracts.agents.agents import (
    Agent,
    AgentMode,
    AgentNotFound,
    GetAgent,
    RegisterAgent,
    ResumeAgent,
)

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

RESUMABLE = ("stopped", "crashed", "idle")
"""In these states an agent has no process that could be heard of."""


class Registration(TypedDict, total=False):
    """What an agent can say about itself: the fields of ``RegisterAgent``."""

    id: UUID | None
    name: str | None
    task_id: UUID | None
    initiative_id: UUID | None
    session_id: str | None
    worktree_id: str | None
    provider: str
    account_id: UUID | None
    mode: AgentMode
    pid: int | None
    host: str | None
    prompt: str | None
    output_file_path: str | None
    heartbeat_interval_s: int


async def enter(bus: Caller, registration: Registration) -> Agent:
    """Register the agent, or resume it if it exists and has ended.

    A new one without a task is ``idle`` until it claims one. Raises ``InvalidTransition`` if
    another process is that agent.
    """
    given = {name: value for name, value in registration.items() if value is not None}
    process: dict[str, object] = {"pid": os.getpid(), "host": socket.gethostname()}
    fields = process | given
    try:
        return await bus.call(RegisterAgent.model_validate(fields))
    except AlreadyExists as taken:
        agent = await _known(bus, registration["id"], taken)
    if agent.status not in RESUMABLE:
        raise InvalidTransition(
            entity="agent",
            id=agent.id,
            from_=agent.status,
            to="running",
            expected=" or ".join(RESUMABLE),
        )
    keys = ("id", "pid", "host", "session_id")
    again: dict[str, object] = {name: fields[name] for name in keys if name in fields}
    again["connection_name"] = str(agent.id)
    return await bus.call(ResumeAgent.model_validate(again))


async def _known(bus: Caller, agent_id: UUID | None, taken: AlreadyExists) -> Agent:
    """The agent with this id; if there is none, it is the name that was taken."""
    try:
        return await bus.call(GetAgent.model_validate({"id": agent_id}))
    except AgentNotFound:
        raise taken from None
