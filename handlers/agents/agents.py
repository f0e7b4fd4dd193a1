"""What happens to agents."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, changes, decider, handler, query
from bus.storage import add, get_locked, remove, save
from contracts.agents.agents import (
    Agent,
    AgentCancelRequested,
    AgentDeletion,
    AgentDismissed,
    AgentPrompt,
    AgentRegistered,
    AgentResumed,
    AgentRunning,
    AgentUpdated,
    AgentWaiting,
    AskInput,
    ConfirmSuspicion,
    CrashAgent,
    DeleteAgent,
    DismissAgent,
    FindAgent,
    FinishAgent,
    GetAgentPrompt,
    Heartbeat,
    RegisterAgent,
    ReinstateAgent,
    RequestAgentCancel,
    ResumeAgent,
    StopAgent,
    SuspectAgent,
    Suspicion,
    SwitchAgentAccount,
    UpdateAgent,
)
from handlers.agents._account_switching import switched
from handlers.agents._accounts import take_next
from handlers.agents._agent_rules import (
    is_between_runs,
    new_agent,
    require_incarnation,
    require_live,
    resumed,
    start_work,
)
from handlers.agents._aliases import add_with_alias
from handlers.agents._crashes import confirm, report
from handlers.agents._endings import dissolve, finish, stop
from handlers.agents._liveness import beat, reinstate, suspect
from handlers.agents.states import AGENT
from persistence.agents import agents
from persistence.agents import held as _held
from persistence.agents.tables import Prompt


@handler
async def register_agent(
    command: RegisterAgent, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> Agent:
    agent = new_agent(command, name=command.name or "", id_=new_id, now=now)

    prompt = agents.prompt_for(agent, command.prompt, now=now)
    if command.name is None:
        agent = await add_with_alias(db, agent)
        await add(db, [], beside=prompt)
    else:
        await add(db, [agent], beside=prompt)
    emit(AgentRegistered(agent=agent))
    if command.task_id is None:
        return agent

    running = start_work(agent, command.task_id, now)
    await save(db, [running])
    emit(AgentRunning(agent=running))

    return running


@query
def get_agent_prompt(
    query: GetAgentPrompt,  # noqa: ARG001  the id has been used to find them
    agent: Agent,
    prompt: Prompt | None,
) -> AgentPrompt:
    return AgentPrompt(id=agent.id, prompt=prompt.prompt if prompt else None)


@query
async def find_agent(query: FindAgent, *, db: AsyncConnection) -> Agent:
    return await agents.find(db, query)


@decider
def update_agent(command: UpdateAgent, agent: Agent, *, now: datetime) -> Decision[Agent]:
    require_incarnation(agent, command.incarnation)
    agent.expect(command.expected_version)
    if not (changed := changes(command, agent, besides=("incarnation",))):
        return Decision.unchanged(agent)

    updated = agent.evolve(now, **changed)

    return Decision(updated, AgentUpdated(agent=updated))


@decider
def heartbeat(command: Heartbeat, agent: Agent, *, now: datetime) -> Decision[Agent]:
    return beat(command, agent, now)


@decider
def ask_input(command: AskInput, agent: Agent, *, now: datetime) -> Decision[Agent]:
    require_live(agent, command.incarnation, "ask")

    waiting = agent.evolve(
        now, status="waiting_for_input", pending_questions=command.questions, stalled_at=None
    )

    return Decision(waiting, AgentWaiting(agent=waiting))


@decider
def resume_agent(command: ResumeAgent, agent: Agent, *, now: datetime) -> Decision[Agent]:
    running = resumed(command, agent, now)

    return Decision(running, AgentResumed(agent=running, previous_status=agent.status))


@handler
async def finish_agent(
    command: FinishAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Agent:
    finished = finish(command, await _held.lock(db, command.id), now)

    await carry_out(finished.decisions, db=db, emit=emit)

    return finished.agent.entity


@handler
async def stop_agent(
    command: StopAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Agent:
    stopped = stop(command, await _held.lock(db, command.id), now)

    await carry_out(stopped.decisions, db=db, emit=emit)

    return stopped.agent.entity


@handler
async def crash_agent(
    command: CrashAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Agent:
    crashed = report(command, await _held.lock(db, command.id), now)

    await carry_out(crashed.decisions, db=db, emit=emit)

    return crashed.agent.entity


@handler
async def suspect_agent(
    command: SuspectAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Suspicion:
    behind = await agents.lock_behind(db, command.connection_name)

    decisions = [suspect(agent, now) for agent in behind]
    await carry_out(decisions, db=db, emit=emit)

    return Suspicion(agents=[decision.entity for decision in decisions])


@handler
async def reinstate_agent(
    command: ReinstateAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Suspicion:
    behind = await agents.lock_behind(db, command.connection_name)

    decisions = [reinstate(agent, now) for agent in behind if agent.suspected_at is not None]
    await carry_out(decisions, db=db, emit=emit)

    return Suspicion(agents=[decision.entity for decision in decisions])


@handler
async def confirm_suspicion(
    command: ConfirmSuspicion, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Agent:
    held = await _held.lock(db, command.id)
    crashed = confirm(command, held, now)
    if crashed is None:
        return held.agents[0]

    await carry_out(crashed.decisions, db=db, emit=emit)

    return crashed.agent.entity


@decider
def request_agent_cancel(
    command: RequestAgentCancel,  # noqa: ARG001  the id has been used to find it
    agent: Agent,
    *,
    now: datetime,
) -> Decision[Agent]:
    if is_between_runs(agent):
        raise AGENT.refusal(agent, "request_cancel", expected="in a run that could be ended")
    if agent.cancel_requested_at is not None:
        return Decision.unchanged(agent)

    asked = agent.evolve(now, cancel_requested_at=now)

    return Decision(asked, AgentCancelRequested(agent=asked))


@handler
async def switch_agent_account(
    command: SwitchAgentAccount, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Agent:
    agent = await get_locked(db, Agent, command.id)
    require_live(agent, command.incarnation, "switch_account")
    account_id = command.account_id
    if account_id is None:
        taken = await take_next(db, emit, agent.provider, now=now, besides=agent.account_id)
        account_id = taken.id
    if account_id == agent.account_id:
        return agent

    decision = switched(agent, account_id, command.reason, now)
    await carry_out([decision], db=db, emit=emit)

    return decision.entity


@decider
def dismiss_agent(
    command: DismissAgent,  # noqa: ARG001  the id has been used to find it
    agent: Agent,
    *,
    now: datetime,
) -> Decision[Agent]:
    AGENT.require(agent, "dismiss")
    if agent.dismissed_at is not None:
        return Decision.unchanged(agent)

    dismissed = agent.evolve(now, dismissed_at=now)

    return Decision(dismissed, AgentDismissed(agent=dismissed))


@handler
async def delete_agent(
    command: DeleteAgent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> AgentDeletion:
    deleted = dissolve(await _held.lock(db, command.id), now)

    await carry_out(deleted.decisions, db=db, emit=emit)
    agent = deleted.agent.entity
    await remove(db, agent)

    return AgentDeletion(id=agent.id, name=agent.name)
