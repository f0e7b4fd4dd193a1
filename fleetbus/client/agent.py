"""An agent for as long as a block of code lasts: registered, kept alive, its end reported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from bus.contract.errors import InvalidTransition
from bus.contract.fields import JsonObject
from bus.contract.model import Reply
from bus.contract.operation import Operation
from bus.contract.refusals import Refusal
from bus.kit.aio import end, unhindered
from contracts.agents.agents import (
    Agent,
    AskInput,
    CrashAgent,
    FinishAgent,
    GetAgent,
    HeartbeatReply,
    ResumeAgent,
    StopAgent,
)
from contracts.planning.tasks import ClaimedTask, TaskCategory
from fleetbus.client.errors import AgentLost, CancelRequested
from fleetbus.client.hand import TaskInHand
from fleetbus.client.heart import ENDED, Heart
from fleetbus.client.interruption import Interruption
from fleetbus.client.log import LogBuffer
from fleetbus.client.registration import Registration, enter
from fleetbus.client.tasks import Lookout, Tasks, Wanted
from fleetbus.client.words import Words, is_too_much

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

R = TypeVar("R", bound=Reply)

log = logging.getLogger("fleetbus.worker")

ENDING_SECONDS = 10.0
"""How long an agent may take to report its end before it leaves without doing so."""

NEWS = ("cancel_requested", "crashed", "deleted", "resumed", "stopped", "suspected")
"""Events of others' actions on an agent; it looks at once what they mean for it."""

SUSPECTED = "events.agent.suspected."

AFTER_SUSPICION = 0.75
"""Seconds until a suspected agent says that it lives. A heartbeat that may have been under way
when its connection was lost (half a second) is no proof."""

LOOK_SECONDS = 5.0
"""How often a waiting agent asks for its answer, if no event says that it is there."""


class WorkingAgent:
    """The agent that this process is; made by ``bus.agent(...)``, which also ends it."""

    def __init__(self, bus: Caller, agent: Agent) -> None:
        self.bus = bus
        """The agent's own connection: if it is lost, the agent is missed."""
        self.agent = agent
        """As it was when it began to run."""
        self.cancel_requested = False
        self.finished = False
        self._heart = Heart(bus, agent)
        self._log = LogBuffer(bus, agent)
        self._words = Words(self._log.add, agent=str(agent.id), incarnation=agent.incarnation)
        self._lookout = Lookout(bus.nats)
        self._block = Interruption()
        self._in_hand: set[TaskInHand] = set()
        self._told = asyncio.Event()
        self._living = asyncio.create_task(self._live())
        self._logging = asyncio.create_task(self._log.run())

    @property
    def id(self) -> UUID:
        """Its id; tasks are claimed in its name with this id as text."""
        return self.agent.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.agent.name

    @property
    def incarnation(self) -> int:
        """Which process of this agent this is, from 1."""
        return self.agent.incarnation

    def tasks(
        self,
        *,
        initiative_id: UUID | None = None,
        phase_id: UUID | None = None,
        categories: Sequence[TaskCategory] | None = None,
        lease_seconds: int = 300,
        idle_seconds: float | None = None,
    ) -> Tasks:
        """Ready tasks, one at a time, each claimed when it is asked for; it waits for work.

        The lease of a task is renewed until it is completed, blocked or released. Without a verdict
        it is released when the next task is asked for. The iteration ends when there was nothing to
        claim for ``idle_seconds``; by default it never does.
        """
        asked = {
            "initiative_id": initiative_id,
            "phase_id": phase_id,
            "categories": None if categories is None else list(categories),
        }
        given = {name: value for name, value in asked.items() if value is not None}
        wanted = Wanted(given, lease_seconds=lease_seconds, idle_seconds=idle_seconds)
        return Tasks(self, self._lookout, wanted)

    def progress(self, progress: object) -> None:
        """Report its progress, sent with the next heartbeat unless newer progress replaces it."""
        self._heart.progress(self._words.progress(progress))

    def log(self, text: object) -> None:
        """Append to its log, preferably as JSON Lines. It is stored in the background, in order."""
        self._log.add(text)

    async def ask(self, questions: Sequence[object]) -> JsonObject:
        """Ask a person, and wait for the answers with which the agent is resumed.

        Its lease and those of its tasks are renewed meanwhile. Raises ``AgentLost``.
        """
        self._told.clear()
        asking = self._words.questions(questions)
        asked = AskInput(id=self.id, incarnation=self.incarnation, questions=asking)
        await self._say_running(asked)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._told.wait()
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                agent = await self._say(GetAgent(id=self.id))
                if agent.status != "waiting_for_input":
                    await self.confirm()
                    return agent.answers or {}

    async def finish(self, result: object = None) -> None:
        """Report that it is done, with its result. It stays ``idle`` when the block is left.

        A task in hand goes back to the queue; a verdict on it afterwards comes too late.
        """
        if self._heart.has_news:
            await self.confirm()
        await end(self._living)  # a heartbeat afterwards would say that more is to be expected
        try:
            await self._say_finished(result)
        except BaseException:
            self._living = asyncio.create_task(self._live())
            raise
        self.finished = True
        await self._let_go()

    async def confirm(self) -> None:
        """Make sure that the service knows this process as the agent. Raises ``AgentLost``."""
        await self._heart.beat()

    async def confirm_if_overdue(self) -> None:
        """The same, if it was silent for so long that it may have been considered crashed."""
        if self._heart.overdue:
            await self.confirm()

    def take(self, claimed: ClaimedTask, lease_seconds: int) -> TaskInHand:
        """Keep renewing the lease of a task that was claimed in the agent's name."""
        task = TaskInHand(
            self.bus,
            claimed,
            lease_seconds=lease_seconds,
            lost=self._block.interrupt,
            log=self._log.add,
        )
        self._in_hand = {one for one in self._in_hand if not one.settled} | {task}
        return task

    async def listen(self) -> None:
        """Listen to the events of the agent, so that it need not wait for the next heartbeat."""
        for fact in NEWS:
            await self.bus.nats.subscribe(f"events.agent.{fact}.{self.id}", cb=self._hear)

    def block(self) -> Interruption:
        """The block of code that is ended when the agent is."""
        return self._block

    async def end(self, error: BaseException | None) -> None:
        """Report how it ended, and end. The error that left the block is more important."""
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                await self._last_words(error)
        except (AgentLost, TimeoutError, Refusal, NatsError) as failure:
            if error is None:
                raise
            log.warning("agent %s could not report its end: %s", self.id, failure)
        finally:
            await end(self._living, self._logging)
            await self._let_go()

    async def _let_go(self) -> None:
        for task in self._in_hand:
            await task.drop()

    async def _last_words(self, error: BaseException | None) -> None:
        word = self._last_word(error)  # first, for what it leaves out is in the log
        with contextlib.suppress(TimeoutError, Refusal, NatsError):
            async with asyncio.timeout(ENDING_SECONDS / 2):
                await self._log.flush()
        if isinstance(error, AgentLost):
            return
        if self._heart.has_news and not self.finished:
            await self.confirm()
        if word is not None:
            await self._say(word)

    def _last_word(self, error: BaseException | None) -> StopAgent | CrashAgent | None:
        if error is None and self.finished:
            return None
        if isinstance(error, Exception) and not isinstance(error, CancelRequested):
            reason = self._words.reason(error)
            return CrashAgent(id=self.id, incarnation=self.incarnation, reason=reason)
        ended = "task_complete" if error is None else "interrupted"
        ended = "user_requested" if isinstance(error, CancelRequested) else ended
        return StopAgent(id=self.id, incarnation=self.incarnation, reason=ended)

    async def _live(self) -> None:
        try:
            await self._heart.run(self._learn)
        except AgentLost as lost:
            self._block.interrupt(lost)

    def _learn(self, reply: HeartbeatReply) -> None:
        if reply.cancel_requested and not self.cancel_requested:
            self.cancel_requested = True
            self._block.interrupt(CancelRequested(self.id))

    async def _hear(self, message: Msg) -> None:
        self._told.set()
        self._heart.beat_now()
        if message.subject.startswith(SUSPECTED):
            asyncio.get_running_loop().call_later(AFTER_SUSPICION, self._heart.beat_now)

    async def _say_finished(self, result: object) -> None:
        """Finish with this result, or with its beginning if it is refused for its size."""
        said = self._words.result(result)
        finish = FinishAgent(id=self.id, incarnation=self.incarnation, result=said)
        try:
            await self._say_running(finish)
        except (Refusal, MaxPayloadError) as failure:
            if not is_too_much(failure):
                raise
            short = {"result": self._words.short_result(result)}
            await self._say_running(finish.model_copy(update=short))

    async def _say_running(self, operation: Operation[R]) -> R:
        """Send what only a running agent can send, even if it has claimed nothing yet."""
        try:
            return await self.bus.call(operation)
        except ENDED as refusal:
            if not (isinstance(refusal, InvalidTransition) and refusal.from_ == "idle"):
                raise AgentLost(self.id, refusal) from refusal
        await self._say(ResumeAgent(id=self.id))
        return await self._say(operation)

    async def _say(self, operation: Operation[R]) -> R:
        try:
            return await self.bus.call(operation)
        except ENDED as refusal:
            raise AgentLost(self.id, refusal) from refusal


@contextlib.asynccontextmanager
async def working(bus: Caller, registration: Registration) -> AsyncIterator[WorkingAgent]:
    """An agent for as long as the block lasts, on a connection with its id as name.

    The id of an agent that has ended, or is idle, resumes it. Raises ``InvalidTransition`` if it is
    still running.
    """
    agent = WorkingAgent(bus, await enter(bus, registration))
    try:
        await agent.listen()
        with agent.block() as block:
            yield agent
    except BaseException as error:
        await unhindered(agent.end(error))
        raise
    # A block that swallowed its interruption is ended for that reason all the same.
    await unhindered(agent.end(block.reason))
    if isinstance(block.reason, AgentLost):
        raise block.reason
