"""A task in an agent's hand: its lease is kept until a verdict is given, or it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from nats.errors import MaxPayloadError

from bus.contract.errors import InvalidTransition
from bus.contract.operation import Command
from bus.contract.refusals import Refusal
from bus.kit.aio import end
from bus.kit.ids import uuid7
from contracts.planning.tasks import (
    BlockTask,
    ClaimedTask,
    CompleteTask,
    InitiativeBrief,
    PhaseBrief,
    ReleaseTask,
    RenewTask,
    StaleAttempt,
    Task,
    TaskBrief,
    TaskNotFound,
)
from fleetbus.client.errors import TaskLost
from fleetbus.client.interruption import Interruption
from fleetbus.client.words import Words, is_too_much

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

log = logging.getLogger("fleetbus.worker")

GONE = (TaskNotFound, InvalidTransition, StaleAttempt)
"""Refusals that say: this attempt no longer has that task."""

AFTER_FAILURE = 0.2
"""Seconds between a renewal that was refused for no reason of ours and the next."""


class TaskInHand:
    """A claimed task. Give it a verdict: ``complete``, ``block`` or ``release``.

    ``with task:`` is a block that ends with ``TaskLost`` when the task is lost; without such a
    block, the agent's own block does.
    """

    def __init__(
        self,
        bus: Caller,
        claimed: ClaimedTask,
        *,
        lease_seconds: int,
        lost: Callable[[TaskLost], None],
        log: Callable[[str], None],
    ) -> None:
        self.task = claimed.task
        """As it was when it was claimed."""
        self.context = claimed
        """The claim: the task with its phase, its initiative and what it depends on."""
        self.lost: TaskLost | None = None
        """Why the task is no longer the agent's; None while it is."""
        self.settled = False
        """Whether the work on this task is over: a verdict was given, or it is lost."""
        self._bus = bus
        self._lease_seconds = lease_seconds
        self._tell_lost = lost
        self._words = Words(log, task=str(claimed.task.id), attempt=claimed.task.attempt)
        self._block = Interruption()
        self._deciding = False
        self._said: tuple[Command[Task], str] | None = None
        self._keeper = asyncio.create_task(self._keep())

    @property
    def id(self) -> UUID:
        """The task's id."""
        return self.task.id

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def description(self) -> str | None:
        """The task's description, in Markdown."""
        return self.task.description

    @property
    def attempt(self) -> int:
        """The attempt of this claim: the fencing token."""
        return self.task.attempt

    @property
    def phase(self) -> PhaseBrief | None:
        """The phase that it belongs to."""
        return self.context.phase

    @property
    def initiative(self) -> InitiativeBrief | None:
        """The initiative that it belongs to."""
        return self.context.initiative

    @property
    def dependencies(self) -> list[TaskBrief]:
        """The tasks that it depends on, with their summaries."""
        return self.context.dependencies

    async def complete(self, summary: object = None, result: object = None) -> Task:
        """Report that it is done. A result that comes too late is kept, and ``TaskLost`` raised.

        Any value is accepted: characters that cannot be stored are replaced, and a value that is
        too large is cut with a mark and goes to the agent's log in full.
        """
        return await self._say_storable(
            lambda: CompleteTask(
                id=self.id,
                attempt=self.attempt,
                summary=self._words.summary(summary),
                result=self._words.result(result),
            ),
            lambda: CompleteTask(
                id=self.id,
                attempt=self.attempt,
                summary=self._words.short("summary", summary),
                result=self._words.short_result(result),
            ),
        )

    async def block(self, reason: object) -> Task:
        """Report that it cannot continue until a person has looked at it. Raises ``TaskLost``."""
        return await self._say_storable(
            lambda: BlockTask(id=self.id, attempt=self.attempt, reason=self._words.reason(reason)),
            lambda: BlockTask(
                id=self.id, attempt=self.attempt, reason=self._words.short("reason", reason)
            ),
        )

    async def release(self, reason: object) -> Task:
        """Give it back unfinished, for anybody to claim. Raises ``TaskLost``."""
        return await self._say_storable(
            lambda: ReleaseTask(
                id=self.id, attempt=self.attempt, reason=self._words.reason(reason)
            ),
            lambda: ReleaseTask(
                id=self.id, attempt=self.attempt, reason=self._words.short("reason", reason)
            ),
        )

    async def renew(self) -> None:
        """Renew the claim now; it happens by itself at a third of the lease. Raises ``TaskLost``.

        While a verdict is on its way it may be the verdict that ended the claim: that is no loss.
        """
        request = RenewTask(id=self.id, attempt=self.attempt, lease_seconds=self._lease_seconds)
        try:
            # Without a key: renewed twice is as good as once, and it waits for no stored reply.
            limit = max(1.0, self._lease_seconds / 3)
            await self._bus.request(request, timeout=limit, keyed=False)
        except GONE as refusal:
            if not (self._deciding or self.settled):
                raise self._lose(refusal) from refusal

    async def drop(self) -> None:
        """Stop renewing the lease."""
        self.settled = True
        await end(self._keeper)

    def __enter__(self) -> Self:
        if self.lost is not None:
            raise self.lost
        self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._block.__exit__(kind, error, traceback)

    async def _say_storable(
        self, verdict: Callable[[], Command[Task]], shorter: Callable[[], Command[Task]]
    ) -> Task:
        """Give the verdict; if it is refused for its size, give it in fewer words."""
        try:
            return await self._say(verdict())
        except (Refusal, MaxPayloadError) as failure:
            if not is_too_much(failure):
                raise
            log.warning("task %s: said in fewer words: %s", self.id, failure)
        return await self._say(shorter())

    async def _say(self, verdict: Command[Task]) -> Task:
        # The same verdict again, after silence, has the same key: it is given once.
        if self._said is None or self._said[0] != verdict:
            self._said = verdict, str(uuid7())
        self._deciding = True
        try:
            task = await self._bus.call(verdict, key=self._said[1])
        except GONE as refusal:
            await self.drop()
            raise self._lose(refusal) from refusal
        finally:
            self._deciding = False
        await self.drop()
        return task

    async def _keep(self) -> None:
        pause = self._lease_seconds / 3
        while not self.settled:
            await asyncio.sleep(pause)
            pause = self._lease_seconds / 3
            try:
                await self.renew()
            except TaskLost as lost:
                self._interrupt(lost)
            except (TimeoutError, Refusal) as failure:
                log.warning("lease of task %s: %s", self.id, failure)
                pause = AFTER_FAILURE

    def _lose(self, refusal: Refusal) -> TaskLost:
        self.settled = True
        if self.lost is None:
            self.lost = TaskLost(self.id, refusal)
            log.warning("%s", self.lost)
        return self.lost

    def _interrupt(self, lost: TaskLost) -> None:
        if self._block.active:
            self._block.interrupt(lost)
        elif not self._block.entered:
            self._tell_lost(lost)
