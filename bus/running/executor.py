"""Runs calls: queries on read-only connections, commands in one transaction, deciders in batches.

A transaction's course: BEGIN · the clock, stored replies and what the work is about · the work ·
what must follow (reactions) · outbox and idempotency rows, last of all · COMMIT · the answers. What
a decider changed is written together with those, unless a reaction has to see it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from bus.contract.errors import DeadlineExceeded
from bus.contract.model import Reply
from bus.contract.refusals import Refusal
from bus.handling.decisions import Kept
from bus.handling.shape import DECIDER, GATHERED, HANDLER, QUERY, TOGETHER
from bus.running.attempts import Attempts, LockedOut, Overtaken
from bus.running.calls import OUTSIDE, Answer, Call, Outcome
from bus.running.executor_settings import ExecutorSettings
from bus.running.failures import loggable, refusal_for
from bus.running.fitting import fitting_rows
from bus.running.hashing import Hashing
from bus.running.keeping import kept_reply, replay
from bus.running.lookups import Lookups
from bus.running.preparing import Preparing
from bus.running.reader import Reader
from bus.running.registry import Registry
from bus.running.replying import Replies
from bus.running.together import Together
from bus.running.transaction import CommitUnknown, Transaction, begin
from bus.running.work import decide, following, gather, handle, open_work, react
from bus.storage import sizes as _sizes
from bus.storage.database import Database
from bus.storage.driver import Compiled
from bus.storage.outages import LOCK_NOT_AVAILABLE, sqlstate
from bus.storage.own import commit as _commit
from bus.storage.own.commit import KeptReply, Written
from bus.storage.sealed import KeyRing
from bus.storage.slots import Slots

log = logging.getLogger("fleetbus.bus")

CLEAN_UP_TIME = 0.5
"""Seconds beyond the deadline after which the database is not waited for any more."""


def _nothing() -> None:
    """Nobody waits for this transaction to leave."""


Work = Callable[[Transaction, Sequence[Call]], Awaitable[list[Outcome]]]


class Executor:
    """Runs validated calls against the database and answers each exactly once."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        settings: ExecutorSettings | None = None,
        *,
        committed: Callable[[], None] = lambda: None,
        keys: KeyRing | None = None,
        max_payload: Callable[[], int] = lambda: 1024 * 1024,
    ) -> None:
        self._registry = registry
        self._database = database
        self.settings = settings or ExecutorSettings()
        self._max_payload = max_payload
        self._committed = committed
        self._attempts = Attempts(database)
        # Calls that wait for locks leave half of the connections to those that need not.
        self._patience = Slots(max(1, database.pools.write // 2))
        self.keys = keys or KeyRing.parse("")
        self._replies = Replies(max_payload)
        self._together = Together(registry, self._replies, max_payload)
        self._lookups = Lookups(database, self._replies, self._left)
        self._reader = Reader(
            registry, database, self.settings.expensive_in_flight, self._replies.room
        )
        hashing = Hashing(self.settings.hashing)
        self._preparing = Preparing(registry, database, self._attempts, hashing, self._left)
        self._alone = {
            QUERY: self.run_query,
            HANDLER: self.run_handler,
            TOGETHER: self.run_together,
        }
        self._gathered = {DECIDER: self._decide, GATHERED: self._gather}

    async def prepare(self, call: Call) -> None:
        """Do what a command needs before its transaction; answers it where that fails."""
        await self._preparing.prepare(call)

    async def run(self, call: Call) -> None:
        """Answer a call that is not gathered with others."""
        await self._alone[call.bound.handling.shape](call)

    async def run_query(self, call: Call) -> None:
        """Answer one query."""
        with _sizes.measured(self._max_payload()):
            await self._attempts.run([call], self._query)

    async def run_lookups(self, calls: Sequence[Call], _: Callable[[], None]) -> Sequence[Call]:
        """Answer queries by id, all of one operation, with one statement."""
        await self._attempts.run(calls, self._lookups.answer)
        return ()

    async def run_handler(self, call: Call) -> None:
        """Run one command in a transaction of its own."""
        await self._attempts.run([call], lambda calls: self._transact(calls, self._handle))

    async def run_together(self, call: Call) -> None:
        """Run the commands that one holds in one transaction, once all of them are valid."""

        async def run(calls: Sequence[Call]) -> None:
            call.part = None
            await self._transact(calls, self._together.run)

        try:
            call.parts = await self._together.read(call)
        except Exception as error:  # noqa: BLE001  every exception becomes an answer
            call.refuse(refusal_for(error, call.bound))
        else:
            await self._preparing.prepare_parts(call)
            await self._attempts.run([call], run)

    async def run_batch(self, calls: Sequence[Call], leaving: Callable[[], None]) -> Sequence[Call]:
        """Run commands of one operation in one transaction; a decider's, each on another entity.

        If the database refuses the batch as a whole they are run again one by one. ``leaving`` is
        called when there is only the COMMIT left. Returns those that wait for a lock of someone
        else: ``run_alone`` has the patience for them.
        """
        if keyless := _keyless(calls):
            keyed = [call for call in calls if call.key is not None]
            waiting = await self.run_batch(keyless, _nothing)
            return [*waiting, *await self.run_batch(keyed, leaving)]
        lock_timeout = self.settings.batch_lock_timeout
        if len(calls) > 1:
            try:
                await self._transact(calls, self._batched, lock_timeout, leaving)
            except CommitUnknown:
                await self._attempts.find_out(calls)
            except Exception as error:  # noqa: BLE001  whatever it was, each call finds out for itself
                why = loggable(error, calls[0].bound)
                log.debug("a batch of %d is run one by one: %s", len(calls), why)
                lock_timeout /= 10
            else:
                return ()
        alone = leaving if len(calls) == 1 else _nothing
        waiting = []
        for call in calls:
            try:
                await self._attempts.run(
                    [call], lambda one: self._batch_unless(one, lock_timeout, alone)
                )
            except LockedOut:
                waiting.append(call)
        return waiting

    async def run_alone(self, call: Call) -> None:
        """Run a command of a batch that waits for a lock, for as long as its caller does.

        The connection is given back now and then: who waits for one row must not keep another
        from one that is free by now.
        """

        async def run(calls: Sequence[Call]) -> None:
            async with self._patience.slot(vital=_vital(calls)):
                await self._batch_unless(calls, self.settings.lone_lock_timeout)

        while not call.answered:
            with contextlib.suppress(LockedOut):
                await self._attempts.run([call], run)

    async def _batch_unless(
        self, calls: Sequence[Call], lock_timeout: float, leaving: Callable[[], None] = _nothing
    ) -> None:
        try:
            await self._transact(calls, self._batched, lock_timeout, leaving)
        except Exception as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                raise LockedOut from error
            raise

    async def _query(self, calls: Sequence[Call]) -> None:
        call = calls[0]
        async with asyncio.timeout(self._left(calls)):
            reply = await self._reader.reply(call)
        call.answer(self._replies.answer(call.bound, reply))

    async def _transact(
        self,
        calls: Sequence[Call],
        work: Work,
        lock_timeout: float | None = None,
        leaving: Callable[[], None] = _nothing,
    ) -> None:
        left = partial(self._left, calls)
        async with (
            asyncio.timeout(left() + CLEAN_UP_TIME),
            begin(
                self._database,
                left=left,
                lock_timeout=lock_timeout,
                planned_once=lock_timeout is not None,
                vital=_vital(calls),
            ) as tx,
        ):
            opening = await open_work(tx, calls)
            fresh = _unanswered(calls, opening)
            if not fresh:
                return
            tx.now, tx.strict = opening.now, self._registry.strict
            with _sizes.measured(self._max_payload()):
                outcomes = await work(tx, fresh)
            outcomes = await self._recheck(tx, outcomes)
            position = await self._finish(tx, outcomes, leaving)
        for outcome in outcomes:
            outcome.answer.position = position if outcome.kept else None
            outcome.call.answer(outcome.answer)
        if position is not None:
            self._committed()

    async def _handle(self, tx: Transaction, calls: Sequence[Call]) -> list[Outcome]:
        call = calls[0]
        return [self._outcome(call, await handle(self._registry, tx, call))]

    async def _batched(self, tx: Transaction, calls: Sequence[Call]) -> list[Outcome]:
        return await self._gathered[calls[0].bound.handling.shape](tx, calls)

    async def _gather(self, tx: Transaction, calls: Sequence[Call]) -> list[Outcome]:
        replies = await gather(self._registry, tx, calls, self._replies.room())
        return [self._outcome(*one) for one in zip(calls, replies, strict=True)]

    def _outcome(self, call: Call, said: Reply | Refusal | Kept) -> Outcome:
        kept = not isinstance(said, Refusal)
        if isinstance(said, Kept):
            said = said.refusal
        if isinstance(said, Refusal):
            return Outcome(call, Answer.refused(refusal_for(said, call.bound)), kept)
        return Outcome(call, self._replies.answer(call.bound, said), kept)

    async def _decide(self, tx: Transaction, calls: Sequence[Call]) -> list[Outcome]:
        outcomes = []
        for decided in await decide(self._registry, tx, calls, self._max_payload()):
            if decided.error is not None:
                answer = Answer.refused(refusal_for(decided.error, decided.call.bound))
            else:
                answer = self._replies.answer(decided.call.bound, decided.reply)
            outcomes.append(Outcome(decided.call, answer, kept=decided.kept))
        return outcomes

    async def _recheck(self, tx: Transaction, outcomes: list[Outcome]) -> list[Outcome]:
        """A refusal may only mean that the same request succeeded while this one waited."""
        refused = [o.call for o in outcomes if not o.kept and o.call.key is not None]
        if not refused:
            return outcomes
        keys = [str(call.key) for call in refused]
        opening = await _commit.open_work(tx.db, refused[0].caller, keys)
        return [o for o in outcomes if o.kept or not _answer_stored(o.call, opening)]

    async def _finish(
        self, tx: Transaction, outcomes: Sequence[Outcome], leaving: Callable[[], None]
    ) -> int | None:
        """Write what was changed, told and answered, and commit; a dry run stops before."""
        dry_run = any(outcome.call.dry_run for outcome in outcomes)
        replies = [kept_reply(o.call, o.answer) for o in outcomes if o.kept and o.call.key]
        caller = outcomes[0].call.caller if outcomes else OUTSIDE
        written = None if dry_run else await self._write_at_once(tx, caller, replies)
        if written is None:
            await tx.save()
            measured = fitting_rows(tx, tx.told, self._max_payload())
            await react(self._registry, tx)
            if dry_run:
                await tx.check()
                return None
            followed = tx.outbox_rows(tx.told[len(measured) :])
            written = await tx.append(caller, [*measured, *followed], replies)
        if not (tx.wrote or tx.told or replies):
            return None
        if any(outcome.call.answered for outcome in outcomes):
            raise Overtaken
        await self._commit(tx, outcomes, leaving)
        return written.position

    async def _write_at_once(
        self, tx: Transaction, caller: str, replies: Sequence[KeptReply]
    ) -> Written | None:
        """Write everything with one statement; None if there is something to react to first."""
        reactions = following(self._registry, [told.event for told in tx.told])
        unless: dict[Compiled, list[Any]] = {}
        for reaction, about in reactions.items():
            if reaction.where is None:
                return None
            # Two reactions may look for the same, each on account of its own events.
            asked = unless.setdefault(reaction.where, [])
            asked.extend(id_ for event in about for id_ in reaction.ids(event))
        written = await tx.append(
            caller, fitting_rows(tx, tx.told, self._max_payload()), replies, unless=unless
        )
        return None if written.found else written

    async def _commit(
        self, tx: Transaction, outcomes: Sequence[Outcome], leaving: Callable[[], None]
    ) -> None:
        for outcome in outcomes:
            outcome.call.committing = True
        leaving()
        try:
            await tx.commit()
        except Exception as error:
            if not isinstance(error, CommitUnknown):
                for outcome in outcomes:
                    outcome.call.committing = False
            raise

    def _left(self, calls: Sequence[Call]) -> float:
        """Seconds until the last of these callers stops listening, within the default limit."""
        left = max(call.deadline for call in calls) - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return min(left, self.settings.timeout)


def _vital(calls: Sequence[Call]) -> bool:
    return calls[0].bound.declared.vital


def _keyless(calls: Sequence[Call]) -> list[Call]:
    """Of vital calls those without a key, where others have one: they do not wait for theirs."""
    if not _vital(calls):
        return []
    keyless = [call for call in calls if call.key is None]
    return keyless if len(keyless) < len(calls) else []


def _unanswered(calls: Sequence[Call], opening: _commit.Opening) -> list[Call]:
    return [call for call in calls if not _answer_stored(call, opening)]


def _answer_stored(call: Call, opening: _commit.Opening) -> bool:
    """Answer from the stored reply of the call's key, if there is one."""
    answer = replay(call, opening)
    if answer is not None:
        call.answer(answer)
    return answer is not None
