"""An agent and its events."""

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
    """An agent that runs or ran. Its prompt is kept separately: see ``agents.prompt``."""

    name: Name
    """Unique among agents."""
    task_id: TaskId | None
    """The task that it works on, or last worked on."""
    initiative_id: Id | None
    session_id: Name | None
    """Its session at the provider, with which it can be resumed."""
    worktree_id: Path | None
    """The path of its git worktree."""
    provider: Provider
    account_id: AccountId | None
    status: AgentStatus
    mode: AgentMode
    pid: Count | None
    host: Name | None
    connection_name: ConnectionName | None
    """The name of its NATS connection, by which its loss is noticed; the agent's id by default."""
    exit_code: ExitCode | None
    """The exit code of its last process, until it is resumed."""
    output_file_path: Path | None
    result: Json | None
    """The result of the run that it has finished, until the next one begins."""
    pending_questions: Questions | None
    """What it asks while it is ``waiting_for_input``, or was asking when it ended."""
    answers: JsonObject | None
    """The answers that it was last resumed with in this run."""
    dismissed_at: Time | None
    """When a person dismissed it; null if nobody has."""
    incarnation: Incarnation
    heartbeat_interval_s: HeartbeatSeconds
    last_heartbeat_at: Time | None
    """Heartbeats do not change the version."""
    lease_expires_at: Time | None
    """When it is considered crashed unless it is heard from; null while nothing is expected."""
    suspected_at: Time | None
    """When its connection was lost; null while it is not under suspicion."""
    last_progress_at: Time | None
    """When it began to work, or last reported progress."""
    progress: JsonObject | None
    """The progress that it last reported in this run, or in the one that has ended."""
    stalled_at: Time | None
    """When ``agent.stalled`` was emitted for it; null again once it makes progress."""
    cancel_requested_at: Time | None
    """When somebody asked it to end its current run."""


MAX_LOST_TASKS = 100
"""How many tasks the event of a crash names at most."""


class LostTask(Reply):
    """A task that a crashed agent had, and what became of it."""

    id: TaskId
    attempt: Attempt
    """The attempt that ended with the agent."""
    outcome: Literal["retried", "blocked"]
    retry_count: Count


class AgentRegistered(Event, type="agent.registered"):
    """An agent was registered."""

    agent: Agent


class AgentUpdated(Event, type="agent.updated"):
    """Fields of an agent were changed, or something that it referred to was deleted."""

    agent: Agent


class AgentRunning(Event, type="agent.running"):
    """An agent has begun to work."""

    agent: Agent


class AgentWaiting(Event, type="agent.waiting"):
    """An agent needs an answer before it can go on."""

    agent: Agent


class AgentResumed(Event, type="agent.resumed"):
    """An agent was resumed, as the same process with answers or as a new incarnation."""

    agent: Agent
    previous_status: AgentStatus


class AgentFinished(Event, type="agent.finished"):
    """An agent has done what it was asked to do; a task that it still had is released."""

    agent: Agent


class AgentStopped(Event, type="agent.stopped"):
    """An agent ended in good order; a task that it still had is released."""

    agent: Agent
    reason: StopReason


class AgentSuspected(Event, type="agent.suspected"):
    """The connection of an agent is gone; it counts as crashed unless it comes back in time."""

    agent: Agent


class AgentReconnected(Event, type="agent.reconnected"):
    """An agent that was under suspicion is there after all."""

    agent: Agent


class AgentStalled(Event, type="agent.stalled"):
    """An agent is alive but makes no progress; emitted once until it makes some."""

    agent: Agent


class AgentCrashed(Event, type="agent.crashed"):
    """An agent ended without saying so; emitted once per incarnation."""

    agent: Agent
    cause: CrashCause
    reason: Reason
    exit_code: ExitCode | None
    tasks: Annotated[list[LostTask], Field(max_length=MAX_LOST_TASKS)]
    """The tasks that it had and what became of each, at most the first 100. Each task also has an
    event of its own."""
    progress: JsonObject | None
    """The progress that it last reported."""


class AgentCancelRequested(Event, type="agent.cancel_requested"):
    """Somebody asked an agent to end; it learns that with its next heartbeat."""

    agent: Agent


class AgentAccountSwitched(Event, type="agent.account_switched"):
    """An agent now runs on another account."""

    agent: Agent
    previous_account_id: AccountId | None
    reason: Reason


class AgentAccountNeeded(Event, type="agent.account_needed"):
    """The account of an agent is exhausted, and no other one is available."""

    agent: Agent
    earliest: Time | None
    """When the first account is available again, if that is known."""


class AgentDismissed(Event, type="agent.dismissed"):
    """A person is done with an agent; lists can leave it out."""

    agent: Agent


class AgentDeleted(Event, type="agent.deleted"):
    """An agent was deleted; its log remains until its retention is over."""

    agent: Agent
    """The agent as it last was, with its version one higher."""
