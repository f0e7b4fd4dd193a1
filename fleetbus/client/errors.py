"""The errors that end the work of an agent, or on a task, from outside."""

from __future__ import annotations

from uuid import UUID


class CancelRequested(Exception):
    """Somebody asked the agent to end."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"agent {agent_id} was asked to end")
        self.agent_id = agent_id


class AgentLost(Exception):
    """For the service this process is no longer the agent; ``__cause__`` is its refusal.

    The agent is considered crashed, was ended or deleted by somebody, or has come back as another
    process. Its tasks belong, or will belong, to somebody else.
    """

    def __init__(self, agent_id: UUID, why: object) -> None:
        super().__init__(f"agent {agent_id} is no longer this process: {why}")
        self.agent_id = agent_id


class TaskLost(Exception):
    """A task is no longer the agent's; ``__cause__`` is the refusal that said so.

    Its lease ran out, or somebody took it, ended it or deleted it.
    """

    def __init__(self, task_id: UUID, why: object) -> None:
        super().__init__(f"task {task_id} is lost: {why}")
        self.task_id = task_id
