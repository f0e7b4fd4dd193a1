"""Agents: who runs, on what, and whether it is still alive."""

from typing import Literal, Self

from pydantic import Field, model_validator

from bus.contract import (
    ABSENT,
    AlreadyExists,
    Command,
    Count,
    GetOf,
    Id,
    InvalidReference,
    InvalidTransition,
    Json,
    JsonObject,
    ListOf,
    Name,
    Query,
    Reason,
    Reply,
    Time,
    Version,
    VersionConflict,
)
from contracts.agents._agent import (
    MAX_LOST_TASKS,
    Agent,
    AgentAccountNeeded,
    AgentAccountSwitched,
    AgentCancelRequested,
    AgentCrashed,
    AgentDeleted,
    AgentDismissed,
    AgentFinished,
    AgentNotFound,
    AgentReconnected,
    AgentRegistered,
    AgentResumed,
    AgentRunning,
    AgentStalled,
    AgentStopped,
    AgentSuspected,
    AgentUpdated,
    AgentWaiting,
    LostTask,
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
    Prompt,
    Provider,
    Questions,
    RunningAgentId,
    StopReason,
)
from contracts.agents.accounts import AccountAvailable, AccountUpdated, NoAccountAvailable
from contracts.planning.initiatives import InitiativeId
from contracts.planning.tasks import (
    Incarnation,
    StaleIncarnation,
    TaskBlocked,
    TaskId,
    TaskReleased,
    TaskRetried,
)

EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"


class HeartbeatReply(Reply):
    """What an agent learns with each heartbeat."""

    lease_expires_at: Time | None
    """When the next heartbeat is due at the latest; null for an agent that has finished: nothing is
    expected of it until it works again."""
    cancel_requested: bool
    """Whether it should end."""
    server_time: Time
    """The database's clock."""


class AgentPrompt(Reply):
    """What an agent was asked to do."""

    id: RunningAgentId
    prompt: Prompt | None


class AgentDeletion(Reply):
    """What was deleted."""

    id: RunningAgentId
    name: Name


class Suspicion(Reply):
    """The agents behind the connection: those under suspicion, or those that were until now."""

    agents: list[Agent]


class RegisterAgent(
    Command[Agent],
    subject="db.agents.register",
    errors=(AlreadyExists, InvalidReference),
    emits=(AgentRegistered, AgentRunning),
    example={"name": "brave-otter", "provider": "claude", "host": "worker-3", "pid": 4711},
):
    """Register an agent. With a task it is ``running``, otherwise ``idle``.

    Its lease begins now: unless it is heard from within three heartbeats, it is considered crashed.
    """

    id: RunningAgentId | None = None
    name: Name | None = None
    """If left out, an adjective and an animal that no other agent has."""
    task_id: TaskId | None = None
    initiative_id: InitiativeId | None = None
    session_id: Name | None = None
    worktree_id: Path | None = None
    provider: Provider = "claude"
    account_id: AccountId | None = None
    mode: AgentMode = "execute"
    pid: Count | None = None
    host: Name | None = None
    connection_name: ConnectionName | None = None
    """If left out, the agent's id."""
    prompt: Prompt | None = None
    """What it is asked to do: stored, but not part of any event or list."""
    output_file_path: Path | None = None
    heartbeat_interval_s: HeartbeatSeconds = 10


class GetAgent(GetOf[Agent], subject="db.agents.get"):
    """Get one agent by its id."""

    id: RunningAgentId


class GetAgentPrompt(Query[AgentPrompt], subject="db.agents.prompt", errors=(AgentNotFound,)):
    """Get what an agent was asked to do."""

    id: RunningAgentId


class FindAgent(
    Query[Agent],
    subject="db.agents.find",
    errors=(AgentNotFound,),
    example={"name": "brave-otter"},
):
    """Find one agent by its name, its session or its task; the latest if there are several."""

    name: Name | None = None
    session_id: Name | None = None
    task_id: TaskId | None = None

    @model_validator(mode="after")
    def _by_one(self) -> Self:
        if len(self.model_fields_set) != 1 or None in self.model_dump(exclude_unset=True).values():
            raise ValueError("name one of name, session_id and task_id")
        return self


class ListAgents(ListOf[Agent], subject="db.agents.list", example={"status": "running"}):
    """List the agents that match every filter given, a page at a time."""

    status: AgentStatus | None = None
    initiative_id: InitiativeId | None = None
    mode: AgentMode | None = None
    dismissed: bool | None = None
    suspected: bool | None = None
    order: Literal["created_at", "-created_at", "name", "-name"] = "created_at"


class UpdateAgent(
    Command[Agent],
    subject="db.agents.update",
    errors=(AgentNotFound, VersionConflict, AlreadyExists, InvalidReference, StaleIncarnation),
    emits=(AgentUpdated,),
    example={"id": EXAMPLE_ID, "session_id": "s-17", "pid": 4712},
):
    """Update an agent; fields that are left out stay. Its status has operations of its own.

    An agent that has ended may be updated too, because an update is not an action in its name.
    """

    id: RunningAgentId
    incarnation: Incarnation | None = None
    """The incarnation of the process that sends this, if it is the agent's own."""
    name: Name = ABSENT
    task_id: TaskId | None = None
    initiative_id: InitiativeId | None = None
    session_id: Name | None = None
    worktree_id: Path | None = None
    mode: AgentMode = ABSENT
    pid: Count | None = None
    host: Name | None = None
    connection_name: ConnectionName | None = None
    output_file_path: Path | None = None
    heartbeat_interval_s: HeartbeatSeconds = ABSENT
    expected_version: Version | None = None


class Heartbeat(
    Command[HeartbeatReply],
    subject="db.agents.heartbeat",
    errors=(AgentNotFound, InvalidTransition, StaleIncarnation),
    emits=(AgentReconnected,),
    vital=True,
    example={"id": EXAMPLE_ID, "incarnation": 1, "progress": {"step": "tests"}},
):
    """Report that an agent is alive; its lease holds for three intervals from now.

    ``progress`` says in addition that it makes progress. Neither changes its version. An agent that
    has finished has no lease; one that has ended is refused until it is resumed.
    """

    id: RunningAgentId
    incarnation: Incarnation
    progress: JsonObject | None = None


class AskInput(
    Command[Agent],
    subject="db.agents.ask",
    errors=(AgentNotFound, InvalidTransition, StaleIncarnation),
    emits=(AgentWaiting,),
    example={"id": EXAMPLE_ID, "questions": [{"question": "Which database?"}]},
):
    """Ask a person something and wait for the answer."""

    id: RunningAgentId
    incarnation: Incarnation | None = None
    questions: Questions


class ResumeAgent(
    Command[Agent],
    subject="db.agents.resume",
    errors=(AgentNotFound, InvalidTransition),
    emits=(AgentResumed,),
    example={"id": EXAMPLE_ID, "answers": {"Which database?": "Postgres"}},
):
    """Resume an agent: with answers if it waits for them, as a new incarnation if it has ended.

    An idle agent begins to run.
    """

    id: RunningAgentId
    answers: JsonObject | None = None
    session_id: Name | None = None
    pid: Count | None = None
    host: Name | None = None
    connection_name: ConnectionName | None = None


class FinishAgent(
    Command[Agent],
    subject="db.agents.finish",
    errors=(AgentNotFound, InvalidTransition, StaleIncarnation),
    emits=(AgentFinished, TaskReleased),
    example={"id": EXAMPLE_ID, "result": {"merged": True}},
):
    """Finish the run of an agent; it is idle, and nothing is expected of it until it works again.

    A task that it still has goes back to the queue, as when it is stopped.
    """

    id: RunningAgentId
    incarnation: Incarnation | None = None
    result: Json | None = None


class StopAgent(
    Command[Agent],
    subject="db.agents.stop",
    errors=(AgentNotFound, InvalidTransition, StaleIncarnation),
    emits=(AgentStopped, TaskReleased),
    example={"id": EXAMPLE_ID, "reason": "user_requested"},
):
    """Stop an agent that ended in good order; a task that it still has goes back to the queue."""

    id: RunningAgentId
    incarnation: Incarnation | None = None
    reason: StopReason
    exit_code: ExitCode | None = None


class CrashAgent(
    Command[Agent],
    subject="db.agents.crash",
    errors=(AgentNotFound, InvalidTransition, StaleIncarnation),
    emits=(AgentCrashed, TaskRetried, TaskBlocked),
    example={"id": EXAMPLE_ID, "exit_code": -9, "reason": "killed by the out-of-memory killer"},
):
    """Crash an agent that ended without saying so, with the exit code of its process if known.

    Its tasks are tried again at once; after three retries they are left to a person.
    """

    id: RunningAgentId
    incarnation: Incarnation | None = None
    exit_code: ExitCode | None = None
    reason: Reason


class RequestAgentCancel(
    Command[Agent],
    subject="db.agents.request_cancel",
    errors=(AgentNotFound, InvalidTransition),
    emits=(AgentCancelRequested,),
):
    """Request that an agent end; its next heartbeat says so. Asking again changes nothing.

    The request concerns the agent's current run and ends with it. For an agent that has finished or
    ended it is refused; ``agents.stop`` ends one that has finished.
    """

    id: RunningAgentId


class SwitchAgentAccount(
    Command[Agent],
    subject="db.agents.switch_account",
    errors=(
        AgentNotFound,
        InvalidReference,
        InvalidTransition,
        NoAccountAvailable,
        StaleIncarnation,
    ),
    emits=(AgentAccountSwitched, AccountAvailable, AccountUpdated),
    example={"id": EXAMPLE_ID, "reason": "rate limited"},
):
    """Switch an agent to another account: the named one, or the one that has rested longest.

    An agent that has ended cannot switch until it is resumed.
    """

    id: RunningAgentId
    incarnation: Incarnation | None = None
    account_id: AccountId | None = None
    reason: Reason


class DismissAgent(
    Command[Agent],
    subject="db.agents.dismiss",
    errors=(AgentNotFound, InvalidTransition),
    emits=(AgentDismissed,),
):
    """Dismiss an agent that no longer works: a person is done with it."""

    id: RunningAgentId


class DeleteAgent(
    Command[AgentDeletion],
    subject="db.agents.delete",
    errors=(AgentNotFound, InvalidTransition),
    emits=(AgentDeleted, TaskReleased),
):
    """Delete an agent that no longer works; its log remains, and a task that it has is released."""

    id: RunningAgentId


class SuspectAgent(
    Command[Suspicion],
    subject="db.agents.suspect",
    emits=(AgentSuspected,),
    vital=True,
    example={"connection_name": EXAMPLE_ID},
):
    """Suspect the agent behind a connection of this name, because the connection is gone.

    It is considered crashed if it has not come back when the grace period is over. A name that
    belongs to no living agent changes nothing.
    """

    connection_name: ConnectionName


class ReinstateAgent(
    Command[Suspicion],
    subject="db.agents.reinstate",
    emits=(AgentReconnected,),
    vital=True,
    example={"connection_name": EXAMPLE_ID},
):
    """Reinstate the agent behind a connection of this name, because the connection is back."""

    connection_name: ConnectionName


class ConfirmSuspicion(
    Command[Agent],
    subject="db.agents.confirm_suspicion",
    errors=(AgentNotFound,),
    emits=(AgentCrashed, TaskRetried, TaskBlocked),
    vital=True,
    example={"id": EXAMPLE_ID, "suspected_at": "2026-01-01T12:00:00Z"},
):
    """Confirm a suspicion: the agent has not come back in time and has crashed (``disconnected``).

    If the agent is no longer under this very suspicion, nothing changes.
    """

    id: RunningAgentId
    suspected_at: Time
