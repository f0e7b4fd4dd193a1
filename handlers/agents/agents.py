"""What happens to agents."""

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
from contracts.agents.agents import (
    Agent,
    AgentDeletion,
    AgentPrompt,
    AskInput,
    ConfirmSuspicion,
    CrashAgent,
    DeleteAgent,
    DismissAgent,
    FindAgent,
    FinishAgent,
    GetAgent,
    GetAgentPrompt,
    Heartbeat,
    HeartbeatReply,
    ListAgents,
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
from handlers._shapes import Emit, handler, query


@handler
async def ask_input(command: AskInput, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def confirm_suspicion(command: ConfirmSuspicion, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def crash_agent(command: CrashAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def delete_agent(command: DeleteAgent, *, db: AsyncConnection, emit: Emit) -> AgentDeletion:
    raise NotImplementedError


@handler
async def dismiss_agent(command: DismissAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@query
async def find_agent(query: FindAgent, *, db: AsyncConnection) -> Agent:
    raise NotImplementedError


@handler
async def finish_agent(command: FinishAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@query
async def get_agent(query: GetAgent, *, db: AsyncConnection) -> Agent:
    raise NotImplementedError


@handler
async def heartbeat(command: Heartbeat, *, db: AsyncConnection, emit: Emit) -> HeartbeatReply:
    raise NotImplementedError


@query
async def list_agents(query: ListAgents, *, db: AsyncConnection) -> Page[Agent]:
    raise NotImplementedError


@query
async def get_agent_prompt(query: GetAgentPrompt, *, db: AsyncConnection) -> AgentPrompt:
    raise NotImplementedError


@handler
async def register_agent(command: RegisterAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def reinstate_agent(command: ReinstateAgent, *, db: AsyncConnection, emit: Emit) -> Suspicion:
    raise NotImplementedError


@handler
async def request_agent_cancel(
    command: RequestAgentCancel, *, db: AsyncConnection, emit: Emit
) -> Agent:
    raise NotImplementedError


@handler
async def resume_agent(command: ResumeAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def stop_agent(command: StopAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError


@handler
async def suspect_agent(command: SuspectAgent, *, db: AsyncConnection, emit: Emit) -> Suspicion:
    raise NotImplementedError


@handler
async def switch_agent_account(
    command: SwitchAgentAccount, *, db: AsyncConnection, emit: Emit
) -> Agent:
    raise NotImplementedError


@handler
async def update_agent(command: UpdateAgent, *, db: AsyncConnection, emit: Emit) -> Agent:
    raise NotImplementedError
