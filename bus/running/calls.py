"""One request in work, and its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import pydantic_core

from bus.contract.errors import Unavailable
from bus.contract.refusals import Refusal
from bus.running.failures import internal_error, refusal_for
from bus.running.registry import Bound
from bus.storage.own.commit import StoredReply
from bus.storage.sealed import KeyRing

OUTSIDE = ""
"""NATS does not tell a service who calls; all callers of one account share one key space."""


@dataclass(slots=True)
class Answer:
    """What the caller gets: a reply (status 200) or a problem document."""

    status: int
    body: bytes
    kind: str = ""
    detail: str = ""
    position: int | None = None
    replayed: bool = False
    shortened: bool = False
    """Whether it does not tell all, because it would not fit a message."""
    sent: Callable[[], None] | None = None
    """What wants to know that it is with the socket, or that nobody wants it."""

    @classmethod
    def refused(cls, refusal: Refusal) -> Answer:
        """The answer that tells a refusal."""
        body = pydantic_core.to_json(refusal.problem())
        return cls(refusal.status, body, refusal.type, refusal.detail)

    @classmethod
    def stored(cls, reply: StoredReply) -> Answer:
        """The answer that was stored with an idempotency key."""
        answer = cls(reply.status, reply.reply.encode(), position=reply.position, replayed=True)
        if reply.status != 200:
            problem = pydantic_core.from_json(reply.reply)
            answer.kind, answer.detail = problem["type"], problem["detail"]
        return answer


@dataclass(slots=True, eq=False)
class Call:
    """A validated request on its way through the bus."""

    bound: Bound
    message: Any
    finish: Callable[[Call, Answer], None]
    caller: str = OUTSIDE
    """In whose space its key lies."""
    key: str | None = None
    fingerprint: str = ""
    sealing: KeyRing | None = None
    """What its reply is sealed with before it is kept, if it is secret."""
    deadline: float = float("inf")
    """On the monotonic clock, in seconds."""
    dry_run: bool = False
    traceparent: str | None = None
    started: int = 0
    new_id: UUID | None = None
    prepared: Any = field(default=None, repr=False)
    """What was prepared for it before its transaction."""
    answered: bool = False
    committing: bool = False
    """From here on the work may have taken effect, deadline or not."""
    parts: Sequence[Call] = ()
    """The commands that it holds, of several in one transaction."""
    part: int | None = None
    """Which of them is in work."""

    @property
    def expired(self) -> bool:
        """Whether the caller no longer listens."""
        return time.monotonic() >= self.deadline

    def answer(self, answer: Answer) -> None:
        """Give the caller its one answer."""
        if not self.answered:
            self.answered = True
            self.finish(self, answer)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self.answer(Answer.refused(refusal))

    def refusal(self, error: BaseException) -> Refusal:
        """What an error of its work amounts to; of several commands, with that which it is of.

        What follows from all of them, at the end, refuses what some of them declare: if only one
        does, it is of that one.
        """
        place = self.part
        if place is None:
            able = [
                index
                for index, part in enumerate(self.parts)
                if isinstance(error, part.bound.declared.errors)
            ]
            if len(able) > 1:
                assert isinstance(error, Refusal)
                return error
            if not able:
                return refusal_for(error, self.bound)
            [place] = able
        bound = self.parts[place].bound
        return refusal_for(error, bound).of(place, bound.subject)

    def settle(self, task: asyncio.Task[Any]) -> None:
        """Answer after all if the task that worked on this call ended without doing so."""
        if self.answered:
            return
        if task.cancelled():
            self.refuse(Unavailable(what="the service was stopped before the work was done"))
            return
        self.refuse(internal_error(self.bound, task.exception(), ": there was no answer"))


class Outcome(NamedTuple):
    """What came of one call; ``kept`` when the transaction keeps something of it."""

    call: Call
    answer: Answer
    kept: bool
