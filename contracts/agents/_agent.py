"""An agent, and the events that tell of it."""

from typing import Annotated, Literal

from pydantic import Field

from bus.contract import (
    Attempt,
    Conflict,
    Count,
    Entity,
    Event,
    Id,
    Json,
    JsonObject,
    Name,
    NotFound,
    Reason,
    Reply,
    Time,
)
from contracts.agents._fields import (
    AccountId,
    AgentMode,
    AgentStatus,
    ConnectionName,
    CrashCause,
    ExitCode,
    HeartbeatSeconds,
    Path,
    Provider,
    Questions,
    RunningAgentId,
    StopReason,
)
from contracts.planning.tasks import Incarnation, TaskId


class AgentNotFound(NotFound):
    """There is no such agent."""

    id: RunningAgentId | None = None
    name: Name | None = None
    session_id: Name | None = None
    task_id: TaskId | None = None

    @property
    def detail(self) -> str:
        """Which agent was asked for."""
        asked = ("id", "name", "session_id", "task_id")
        named = [f"{name} {value}" for name in asked if (value := getattr(self, name)) is not None]
        return f"there is no agent with {' and '.join(named) or 'that'}"


class Agent(Entity, not_found=AgentNotFound):
    """A running agent, or one that ran. What it was told to do is kept apart: ``agents.prompt``."""

    name: Name
    """Unique among agents."""
    task_id: TaskId | None
    """The task that it works on, or worked on last."""
    initiative_id: Id | None
    session_id: Name | None
    """The session of its provider, with which it can be resumed."""
    worktree_id: Path | None
    """The path of its git worktree."""
    provider: Provider
    account_id: AccountId | None
    status: AgentStatus
    mode: AgentMode
    pid: Count | None
    host: Name | None
    connection_name: ConnectionName | None
    """The name of its NATS connection, by which a lost connection is known; its id by default."""
    exit_code: ExitCode | None
    """What its last process ended with, until it is resumed."""
    output_file_path: Path | None
    result: Json | None
    """What came of the run that it has finished, until the next one begins."""
    pending_questions: Questions | None
    """What it waits for while it is ``waiting_for_input``, or waited for when it ended."""
    answers: JsonObject | None
    """What it was last resumed with in this run."""
    dismissed_at: Time | None
    """When a person was done with it."""
    incarnation: Incarnation
    heartbeat_interval_s: HeartbeatSeconds
    last_heartbeat_at: Time | None
    """Heartbeats change no version."""
    lease_expires_at: Time | None
    """When it is taken for crashed unless it is heard of; null while nothing is expected of it."""
    suspected_at: Time | None
    """Since when its connection is gone; null while nothing speaks against it."""
    last_progress_at: Time | None
    """When it began to work, or said that it gets on."""
    progress: JsonObject | None
    """The last that it said of its progress in this run, or in the one that has ended."""
    stalled_at: Time | None
    """When it was told that it makes no progress; null again at the next progress."""
    cancel_requested_at: Time | None
    """When somebody asked it to end the run that it is in."""


MAX_LOST_TASKS = 100
"""Tasks that the event of a crash names."""


class LostTask(Reply):
    """A task that a crashed agent had, and what became of it."""

    id: TaskId
    attempt: Attempt
    """The attempt that ended with the agent."""
    outcome: Literal["retried", "blocked"]
    retry_count: Count


class AgentRegistered(Event, type="agent.registered"):
    """An agent is there."""

    agent: Agent


class AgentUpdated(Event, type="agent.updated"):
    """What an agent says of itself was changed, or what it referred to was deleted."""

    agent: Agent


class AgentRunning(Event, type="agent.running"):
    """An agent has begun to work."""

    agent: Agent


class AgentWaiting(Event, type="agent.waiting"):
    """An agent needs an answer before it can go on."""

    agent: Agent


class AgentResumed(Event, type="agent.resumed"):
    """An agent goes on, as the same process with answers or as a new incarnation."""

    agent: Agent
    previous_status: AgentStatus


class AgentFinished(Event, type="agent.finished"):
    """An agent is done with what it was told to do; a task that it had is released."""

    agent: Agent


class AgentStopped(Event, type="agent.stopped"):
    """An agent ended in good order; a task that it had is released."""

    agent: Agent
    reason: StopReason


class AgentSuspected(Event, type="agent.suspected"):
    """The connection of an agent is gone; it is crashed unless it comes back in time."""

    agent: Agent


class AgentReconnected(Event, type="agent.reconnected"):
    """An agent that was suspected is there."""

    agent: Agent


class AgentStalled(Event, type="agent.stalled"):
    """An agent lives and makes no progress; told once until it makes some."""

    agent: Agent


class AgentCrashed(Event, type="agent.crashed"):
    """An agent ended without saying so; told once per incarnation."""

    agent: Agent
    cause: CrashCause
    reason: Reason
    exit_code: ExitCode | None
    tasks: Annotated[list[LostTask], Field(max_length=MAX_LOST_TASKS)]
    """The tasks that it had, and what became of each: the first 100 of them. Of every one its own
    event tells."""
    progress: JsonObject | None
    """The last that it said of its progress."""


class AgentCancelRequested(Event, type="agent.cancel_requested"):
    """Somebody wants an agent to end; it learns so with its next heartbeat."""

    agent: Agent


class AgentAccountSwitched(Event, type="agent.account_switched"):
    """An agent runs on another account."""

    agent: Agent
    previous_account_id: AccountId | None
    reason: Reason


class AgentAccountNeeded(Event, type="agent.account_needed"):
    """The account of an agent is exhausted and there is no other."""

    agent: Agent
    earliest: Time | None
    """When an account is available again, if one says so."""


class AgentDismissed(Event, type="agent.dismissed"):
    """A person is done with an agent; lists can leave it out."""

    agent: Agent


class AgentDeleted(Event, type="agent.deleted"):
    """An agent is gone; what it said remains until its retention."""

    agent: Agent
    """As it was last, its version one higher."""
