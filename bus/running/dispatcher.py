"""From raw request to answer: admission, deadline, decoding, the work, the count."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pydantic import ValidationError

from bus.contract.errors import DeadlineExceeded, DryRunRefused, Overloaded, Unavailable
from bus.contract.sensitive import all_sensitive_fields
from bus.handling.shape import LOOKUP
from bus.kit.header_block import UnreadableHeaders
from bus.running.admission import Admission, Limits, Ticket, caller_of
from bus.running.attempts import UNKNOWN
from bus.running.batcher import Batcher
from bus.running.calls import OUTSIDE, Answer, Call
from bus.running.decoding import LARGE, Decoding
from bus.running.executor import Executor
from bus.running.failures import refusal_for
from bus.running.invalid import invalid_request, wrong_header
from bus.running.keeping import require_keys
from bus.running.registry import Bound, Registry
from bus.running.stats import OperationStats, Stats

log = logging.getLogger("fleetbus.bus")

MAX_KEY_LENGTH = 200

WATCH_INTERVAL = 0.02
"""Seconds between two looks for calls whose deadline has passed."""

COMMIT_GRACE = 1.0
"""Seconds beyond its deadline that a call may wait for the answer to COMMIT."""

Respond = Callable[[Answer], None]


class Dispatcher:
    """Takes every request of the process and sees to it that each gets its answer."""

    def __init__(
        self, registry: Registry, executor: Executor, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.registry = registry
        self.stats = Stats(list(registry.operations))
        self._executor = executor
        self._batchers = {
            bound.subject: self._batcher(bound)
            for bound in registry.operations.values()
            if bound.batched
        }
        self.admission = Admission(self.limits)
        self._budgets = {
            bound.subject: self.admission.budget(bound.declared)
            for bound in registry.operations.values()
        }
        self._refusals: dict[str, tuple[int, Answer]] = {}
        self._decoding = Decoding(self._decode)
        self._tasks: set[asyncio.Task[Batcher | None]] = set()
        self._open: set[Call] = set()
        self._watching = False
        self._idle = asyncio.Event()
        self._idle.set()

    def accept(
        self,
        bound: Bound,
        body: bytes,
        headers: Mapping[str, str],
        respond: Respond,
        reply: str = "",
        *,
        caller: str = OUTSIDE,
    ) -> None:
        """Take a request; ``respond`` is called exactly once, now or later.

        It is admitted before anything of it is read: what is refused costs next to nothing.
        ``reply`` is the reply subject, by which connections are told apart. Whatever comes from
        outside has one ``caller``, whatever its headers say.
        """
        subject = bound.subject
        stats, budget = self.stats.operations[subject], self._budgets[subject]
        connection = caller or caller_of(reply)
        if self.admission.is_full(budget, connection, stats.in_flight):
            self._shed(stats, "operation", respond)
            return
        ticket = budget.admit(connection, len(body) + stats.expected)
        if isinstance(ticket, str):
            self._shed(stats, ticket, respond)
            return
        self.stats.in_flight += 1
        stats.in_flight += 1
        self._idle.clear()
        call = Call(
            bound,
            None,
            self._finisher(respond, ticket),
            caller,
            deadline=time.monotonic() + self._executor.settings.timeout,
            started=time.perf_counter_ns(),
        )
        try:
            _read_headers(call, headers)
        except Exception as error:  # noqa: BLE001  every exception becomes an answer
            call.refuse(refusal_for(error, bound))
            return
        if len(body) < LARGE:
            self._decode(call, body)
        else:
            self._watch_over(call)
            self._decoding.add(call, body)

    async def drained(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    def _decode(self, call: Call, body: bytes) -> None:
        try:
            if call.key is not None:
                call.fingerprint = fingerprint(call.bound.subject, body)
            call.message = call.bound.validator.validate_json(body or b"{}")
            if call.key is not None and call.bound.declared.secret:
                call.sealing = self._executor.keys
                require_keys(call.sealing)
        except ValidationError as error:
            call.refuse(invalid_request(error, all_sensitive_fields(call.bound.operation)))
        except Exception as error:  # noqa: BLE001  every exception becomes an answer
            call.refuse(refusal_for(error, call.bound))
        else:
            self._submit(call)

    def _submit(self, call: Call) -> None:
        if call.expired:
            call.refuse(DeadlineExceeded())
            return
        self._watch_over(call)
        batcher = self._batchers.get(call.bound.subject)
        if call.bound.handling.preparation is not None:
            self._begin(self._prepare(call, batcher), call)
        elif batcher is not None:
            batcher.submit(call)
        else:
            self._begin(self._run(call), call)

    def _begin(self, work: Coroutine[Any, Any, Batcher | None], call: Call) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, call))

    async def _prepare(self, call: Call, batcher: Batcher | None) -> Batcher | None:
        """Prepare a command, then run it, or hand it on to those that it is gathered with."""
        await self._executor.prepare(call)
        if batcher is not None and not call.answered:
            batcher.submit(call)
            return batcher
        await self._run(call)
        return None

    async def _run(self, call: Call) -> None:
        if call.bound.handling.shape.handles == "query":
            await self.admission.queries.room()
        if not call.answered:
            await self._executor.run(call)

    def _watch_over(self, call: Call) -> None:
        self._open.add(call)
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._watch)

    def _watch(self) -> None:
        """Answer calls whose deadline has passed, whatever their work is waiting for.

        What they began is not committed any more; one that is at its COMMIT has a little longer.
        """
        now = time.monotonic()
        late = [call for call in self._open if call.deadline <= now]
        for call in late:
            if not call.committing:
                call.refuse(DeadlineExceeded(when="during the work"))
            elif call.deadline + COMMIT_GRACE <= now:
                call.refuse(Unavailable(what=UNKNOWN))
        for subject in {call.bound.subject for call in late} & self._batchers.keys():
            self._batchers[subject].purge()
        self._watching = bool(self._open)
        if self._watching:
            asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._watch)

    def _ended(self, task: asyncio.Task[Batcher | None], call: Call) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() or task.result() is None:
            call.settle(task)

    def _finisher(self, respond: Respond, ticket: Ticket) -> Callable[[Call, Answer], None]:
        def finish(call: Call, answer: Answer) -> None:
            self._open.discard(call)
            stats = self.stats.operations[call.bound.subject]
            stats.in_flight -= 1
            self.stats.in_flight -= 1
            stats.count(answer, time.perf_counter_ns() - call.started)
            if self.stats.in_flight == 0:
                self._idle.set()
            ticket.answered(len(answer.body))
            answer.sent = ticket.sent
            respond(answer)

        return finish

    def _shed(self, stats: OperationStats, budget: str, respond: Respond) -> None:
        """Refuse; while nothing has changed, with the same answer again."""
        in_flight, answer = self._refusals.get(budget, (-1, None))
        if answer is None or in_flight != self.stats.in_flight:
            in_flight = self.stats.in_flight
            answer = Answer.refused(
                Overloaded(
                    in_flight=in_flight,
                    budget=budget,
                    retry_after_ms=self.limits.retry_after_ms,
                )
            )
            self._refusals[budget] = in_flight, answer
        stats.count_shed(answer, budget)
        respond(answer)

    def _batcher(self, bound: Bound) -> Batcher:
        lookup = bound.handling.shape is LOOKUP
        return Batcher(
            self._executor.run_lookups if lookup else self._executor.run_batch,
            self._executor.run_alone,
            limit=self.limits.batch,
            concurrency=self.limits.concurrent_batches,
            exclusive=not lookup,
            sizes=self.stats.operations[bound.subject].batches,
        )


def _read_headers(call: Call, headers: Mapping[str, str]) -> None:
    if not headers:
        return
    if isinstance(headers, UnreadableHeaders):
        raise wrong_header(
            "headers", "are lines `Name: value` after a line `NATS/1.0`, 64 KiB at most"
        )
    command = call.bound.declared.kind == "command"
    if command and (key := headers.get("Nats-Msg-Id")):
        # U+FFFD stands for bytes that are no UTF-8: different keys would become one.
        if len(key) > MAX_KEY_LENGTH or not key.isprintable() or "\ufffd" in key:
            raise wrong_header("Nats-Msg-Id", f"at most {MAX_KEY_LENGTH} printable characters")
        call.key = key
    if deadline := headers.get("Fleet-Deadline"):
        call.deadline = min(call.deadline, time.monotonic() + _seconds_until(deadline))
    if dry_run := headers.get("Fleet-Dry-Run"):
        if dry_run.lower() not in {"true", "false"}:
            raise wrong_header("Fleet-Dry-Run", "is true or false")
        call.dry_run = command and dry_run.lower() == "true"
    if call.dry_run and (call.bound.declared.judges or call.bound.declared.reveals):
        raise DryRunRefused
    call.traceparent = _traceparent(headers)


def fingerprint(subject: str, body: bytes) -> str:
    """What a key stands for: a hash of subject and body."""
    return hashlib.blake2b(subject.encode() + b"\0" + body, digest_size=16).hexdigest()


def _seconds_until(deadline: str) -> float:
    if not (deadline.isascii() and deadline.isdigit()) or len(deadline) > 15:
        raise wrong_header("Fleet-Deadline", "is a Unix time in milliseconds")
    return int(deadline) / 1000 - time.time()


def _traceparent(headers: Mapping[str, Any]) -> str | None:
    """The W3C trace context; what is not of its form is ignored, as its specification asks."""
    value = headers.get("traceparent")
    if isinstance(value, str) and len(value) <= 512 and value.isascii() and value.isprintable():
        return value
    return None
