"""Several commands in one transaction: each sees what those before did; all are kept, or none.

They run one after the other, each as a batch of one on the transaction that is open. What one has
changed is written before the next one reads. What follows from it all follows once, at the end, and
is written with the events and the one reply, as for any command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pydantic_core
from pydantic import ValidationError

from bus.contract.errors import FieldError, InvalidRequest, ReplyTooLarge
from bus.contract.model import Reply
from bus.contract.refusals import Refusal
from bus.contract.several import GivenCommand, NotTransactional
from bus.handling.decisions import Kept
from bus.handling.shape import DECIDER, GATHERED, HANDLER
from bus.running.calls import Answer, Call, Outcome
from bus.running.fitting import fitting_rows
from bus.running.invalid import MAX_FIELD_ERRORS, wrong_fields
from bus.running.registry import Bound, Registry
from bus.running.replying import Replies
from bus.running.transaction import Transaction
from bus.running.work import decide, gather, handle, open_work

ADVICE = "do less in one transaction"


class Together:
    """Reads and runs the commands of a request that holds several."""

    def __init__(
        self,
        registry: Registry,
        replies: Replies,
        max_payload: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._replies = replies
        self._max_payload = max_payload
        self._ways = {HANDLER: self._handled, GATHERED: self._gathered, DECIDER: self._decided}

    async def read(self, call: Call) -> list[Call]:
        """The commands that a call holds, all valid; between two of them others have a turn."""
        given: Sequence[GivenCommand] = call.bound.handling.function(call.message)
        bound = [self._bound(index, one.subject) for index, one in enumerate(given)]
        parts: list[Call] = []
        errors: list[FieldError] = []
        for index, one in enumerate(given):
            body = pydantic_core.to_json(one.body, inf_nan_mode="constants")
            try:
                message = bound[index].validator.validate_json(body)
            except ValidationError as error:
                errors += wrong_fields(error, within=("operations", index, "body"))
            else:
                parts.append(_part(call, bound[index], message))
            await asyncio.sleep(0)
        if errors:
            raise InvalidRequest(errors=errors[:MAX_FIELD_ERRORS])
        return parts

    async def run(self, tx: Transaction, calls: Sequence[Call]) -> list[Outcome]:
        """Run the commands of a call in order; the first that fails ends the work."""
        [call] = calls
        answers = []
        for index, part in enumerate(call.parts):
            call.part = index
            answers.append(await self._run(tx, part))
        call.part = None
        return [Outcome(call, self._joined(answers), kept=True)]

    async def _run(self, tx: Transaction, part: Call) -> Answer:
        told = len(tx.told)
        tx.loaded = {}
        tx.now = (await open_work(tx, [part], keyed=False)).now
        reply = await self._ways[part.bound.handling.shape](tx, part)
        answer = self._replies.answer(part.bound, reply)
        await tx.save()
        fitting_rows(tx, tx.told[told:], self._max_payload())
        return answer

    async def _handled(self, tx: Transaction, part: Call) -> Any:
        return _reply(await handle(self._registry, tx, part))

    async def _gathered(self, tx: Transaction, part: Call) -> Any:
        [said] = await gather(self._registry, tx, [part], self._replies.room())
        return _reply(said)

    async def _decided(self, tx: Transaction, part: Call) -> Any:
        [decided] = await decide(self._registry, tx, [part], self._max_payload())
        if decided.error is not None:
            # What the refusal would keep is not kept here: it must not say so.
            raise decided.otherwise or decided.error
        return decided.reply

    def _joined(self, answers: Sequence[Answer]) -> Answer:
        """One answer of all replies, each in the very bytes that it has alone."""
        body = b'{"replies":[' + b",".join([answer.body for answer in answers]) + b"]}"
        if len(body) > (room := self._replies.room()):
            raise ReplyTooLarge(bytes=len(body), limit=room, advice=ADVICE)
        return Answer(200, body, shortened=any(answer.shortened for answer in answers))

    def _bound(self, index: int, subject: str) -> Bound:
        bound = self._registry.operations.get(subject)
        why = _why_not(subject, bound)
        if bound is None or why:
            raise NotTransactional(why=why).of(index, subject[:MAX_SUBJECT])
        return bound


def _reply(said: Reply | Refusal | Kept) -> Reply:
    """The reply of a handler; of what it would have kept nothing is, and it must not say so."""
    if isinstance(said, Kept):
        raise said.otherwise
    if isinstance(said, Refusal):
        raise said
    return said


MAX_SUBJECT = 200
"""Characters of an unknown subject that are said again."""


def _why_not(subject: str, bound: Bound | None) -> str:
    """Why a subject cannot stand in a transaction; empty if it can."""
    if bound is None:
        return f"there is no operation {subject[:MAX_SUBJECT]}"
    declared = bound.declared
    if declared.transactional:
        return ""
    why = "does not stand in a transaction with others"
    if declared.kind == "query":
        why = "is a query, and only commands stand in a transaction"
    elif declared.vital:
        why = "is vital: it waits behind no other command"
    elif declared.judges:
        why = "judges a guess, which counts whatever becomes of the other commands"
    elif declared.secret:
        why = "holds a secret, and what is kept of a transaction is not sealed"
    return f"{subject} {why}"


def _part(call: Call, bound: Bound, message: Any) -> Call:
    """A command of a call: its key is what events name as their cause, its time is that of all."""
    return Call(
        bound,
        message,
        call.finish,
        call.caller,
        key=call.key,
        deadline=call.deadline,
        dry_run=call.dry_run,
        traceparent=call.traceparent,
        started=call.started,
    )
