"""Gathers the calls of one operation: while one batch is in the database, the next assembles.

Nobody waits for a timer: a call that comes alone runs at once, as a batch of one. A batch holds at
most one call per entity and per idempotency key, all of one caller; calls on one entity keep their
order.

One batch works at a time, which gathers the most and costs the least; the next one starts when
it is at its COMMIT, for while the disk is waited for there is time to work. Only where one works
longer than usual, for a lock, another one starts beside it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any

from bus.contract.errors import DeadlineExceeded
from bus.running.calls import Call

Leaving = Callable[[], None]
Run = Callable[[Sequence[Call], Leaving], Coroutine[Any, Any, Sequence[Call]]]
RunAlone = Callable[[Call], Coroutine[Any, Any, None]]

PATIENCE = 0.02
"""Seconds that a batch works before another one may start beside it."""


class Batcher:
    """The queue of one operation.

    ``run`` works on a batch, calls what it is given once there is only the COMMIT left, and
    returns the calls that wait for a lock of someone else; those go on through ``run_alone``,
    beside the batches, so that a slow row holds up no other. At most ``concurrency`` batches run,
    each of at most ``limit`` calls. ``sizes`` counts the batches by their size.
    """

    def __init__(
        self,
        run: Run,
        run_alone: RunAlone,
        *,
        limit: int,
        concurrency: int,
        exclusive: bool,
        sizes: Counter[int],
    ) -> None:
        self._run = run
        self._run_alone = run_alone
        self._limit = limit
        self._concurrency = concurrency
        self._exclusive = exclusive
        self._sizes = sizes
        self._waiting: deque[Call] = deque()
        self._busy: set[Hashable] = set()
        self._starting = False
        self._overdue: asyncio.TimerHandle | None = None
        self._last_start = 0.0
        self._running: set[asyncio.Task[Sequence[Call]]] = set()
        self._at_work: set[int] = set()
        self._started = 0
        self._alone: set[asyncio.Task[None]] = set()

    def submit(self, call: Call) -> None:
        """Queue a call; it is answered through the call itself."""
        self._waiting.append(call)
        self._start_soon()

    def purge(self) -> None:
        """Let go of queued calls that have been answered already: their deadline passed."""
        if any(call.answered for call in self._waiting):
            self._waiting = deque(call for call in self._waiting if not call.answered)

    def _start_soon(self) -> None:
        """Start when all that has arrived together is queued, not at the first of it."""
        if len(self._running) >= self._concurrency:
            return
        loop = asyncio.get_running_loop()
        if not self._at_work:
            if not self._starting:
                self._starting = True
                loop.call_soon(self._start)
        elif self._overdue is None:
            self._overdue = loop.call_at(self._last_start + PATIENCE, self._start)

    def _start(self) -> None:
        self._starting = False
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if not self._waiting or not (batch := self._take()):
            return
        self._last_start = asyncio.get_running_loop().time()
        self._sizes[len(batch)] += 1
        self._started += 1
        self._at_work.add(self._started)
        task = asyncio.create_task(self._run(batch, partial(self._leaving, self._started)))
        self._running.add(task)
        task.add_done_callback(partial(self._ended, self._started, batch))
        if self._waiting:
            self._start_soon()

    def _leaving(self, number: int) -> None:
        self._at_work.discard(number)
        if self._waiting:
            self._start_soon()

    def _ended(
        self, number: int, batch: Sequence[Call], task: asyncio.Task[Sequence[Call]]
    ) -> None:
        self._at_work.discard(number)
        self._running.discard(task)
        waiting = () if task.cancelled() or task.exception() else task.result()
        for call in batch:
            if call in waiting:
                self._go_on(call)
            else:
                self._busy.difference_update(_claims(call))
                call.settle(task)
        self._start_soon()

    def _go_on(self, call: Call) -> None:
        task = asyncio.create_task(self._run_alone(call))
        self._alone.add(task)
        task.add_done_callback(partial(self._ended_alone, call))

    def _ended_alone(self, call: Call, task: asyncio.Task[None]) -> None:
        self._alone.discard(task)
        self._busy.difference_update(_claims(call))
        call.settle(task)
        self._start_soon()

    def _take(self) -> list[Call]:
        """The next batch: in order of arrival, leaving whatever must wait for its entity or key."""
        batch: list[Call] = []
        left: list[Call] = []
        blocked: set[Hashable] = set()
        while self._waiting and len(batch) < self._limit:
            call = self._waiting.popleft()
            if call.expired:
                call.refuse(DeadlineExceeded())
                continue
            if not self._exclusive:
                batch.append(call)
                continue
            claims = _claims(call)
            apart = batch and (call.dry_run or call.caller != batch[0].caller)
            if apart or claims & (self._busy | blocked):
                left.append(call)
                blocked |= claims
                continue
            self._busy |= claims
            batch.append(call)
            if call.dry_run:
                break
        self._waiting.extendleft(reversed(left))
        return batch


def _claims(call: Call) -> set[Hashable]:
    """What no other call in work may share with this one: its entity, its idempotency key."""
    entity = getattr(call.message, "id", None)
    key = None if call.key is None else (call.caller, call.key)
    return {claim for claim in (entity, key) if claim is not None}
