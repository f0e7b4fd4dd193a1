"""What becomes of calls when their work fails: repeated, found out about, refused.

Whatever happens, every call is answered exactly once, with the truth as far as it is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from bus.contract.errors import DeadlineExceeded, Unavailable
from bus.running.calls import Answer, Call
from bus.running.failures import is_retryable
from bus.running.keeping import replay
from bus.running.registry import Bound
from bus.running.transaction import CommitUnknown, KeyTaken
from bus.storage.database import Database
from bus.storage.outages import READ_ONLY, sqlstate
from bus.storage.own import commit as _commit

ATTEMPTS = 4
"""One run and three repetitions after serialization failures, deadlocks and lost connections."""

FIND_OUT_TIME = 0.5
"""Seconds that the database is asked what became of a request before its caller is told."""

UNKNOWN = (
    "the connection to the database was lost during COMMIT; "
    "whether it took effect is not known: repeat it with the same key"
)


class LockedOut(Exception):
    """Someone else held a row lock for longer than was to be waited for it."""


class Overtaken(Exception):
    """A call was answered during the work, for its deadline passed: nothing of it may be kept."""


class Attempts:
    """Runs work for calls, again where that helps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(
        self, calls: Sequence[Call], run: Callable[[Sequence[Call]], Awaitable[None]]
    ) -> None:
        """Run with repetitions where they help; every call is answered, or ``LockedOut`` raised."""
        for attempt in range(1, ATTEMPTS + 1):
            waiting = [call for call in calls if not call.answered]
            for call in [call for call in waiting if call.expired]:
                call.refuse(DeadlineExceeded())
                waiting.remove(call)
            if not waiting:
                return
            try:
                await run(waiting)
            except (KeyTaken, Overtaken):
                continue
            except CommitUnknown:
                await self.find_out(waiting)
                continue
            except LockedOut:
                raise
            except Exception as error:  # noqa: BLE001  every exception becomes an answer
                again = attempt < ATTEMPTS and is_retryable(error, waiting[0].bound)
                self._note(waiting[0].bound, error, again=again)
                if again:
                    await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))  # noqa: S311  jitter
                    continue
                await self._refuse(waiting, error)
            return
        await self._refuse(waiting, Unavailable(what="the request could not be completed"))

    def _note(self, bound: Bound, error: Exception, *, again: bool) -> None:
        """Let the database know what is wrong with it; that no query may write is nothing wrong."""
        read_only = sqlstate(error) == READ_ONLY
        if read_only and bound.declared.kind == "query":
            return
        if read_only or not again:
            self._database.note(error)

    async def _refuse(self, calls: Sequence[Call], error: Exception) -> None:
        """Answer with what the error means, or with the reply that its key has by now."""
        for call in calls:
            stored = None
            if call.key is not None:
                with contextlib.suppress(Exception):
                    stored = await self._stored(call)
            if not call.answered:
                call.answer(stored or Answer.refused(call.refusal(error)))

    async def find_out(self, calls: Sequence[Call]) -> None:
        """After a COMMIT without an answer: the idempotency row tells whether it took effect.

        Without a key nothing tells, and the caller learns that. With one a call that is not
        answered here may be run again: it took effect before or does so now, not twice.
        """
        end = time.monotonic() + FIND_OUT_TIME
        for call in calls:
            stored = None
            known = False
            while call.key is not None and not known and time.monotonic() < end:
                try:
                    stored = await self._stored(call)
                    known = True
                except Exception:  # noqa: BLE001  the database is still away
                    await asyncio.sleep(0.05)
            call.committing = False
            if stored is not None:
                stored.replayed = False
                call.answer(stored)
            elif not known:
                call.refuse(Unavailable(what=UNKNOWN))

    async def _stored(self, call: Call) -> Answer | None:
        async with (
            asyncio.timeout(FIND_OUT_TIME),
            self._database.connection(read_only=True) as db,
        ):
            opening = await _commit.open_work(db, call.caller, [str(call.key)])
        return replay(call, opening)
