"""What a process takes on: a budget for each kind of request, shared by those who call.

Commands, queries and what is vital each have a budget of requests and one of bytes, so a flood of
one kind sheds none of another. Within a budget a caller that is alone may have all of it. As soon
as there is another one a caller has its share, and never more than three times of what is still
free; a third of the budget lies on top for that. So whoever comes new finds room.

A request counts with its body and the answer that is to be expected, from when it is taken until
its answer is with the socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from bus.contract.operation import Declared

MEBIBYTE = 1024 * 1024

ALPHA = 3
"""How much of a budget a caller may have, in parts of what is free."""


@dataclass(frozen=True)
class Limits:
    """What a process takes on at once; beyond it requests are shed with 429.

    ``in_flight`` is for commands. ``bytes`` is divided: three eighths each for commands and
    queries, a quarter for what is vital. ``per_caller`` is a quarter of each budget if it is None.
    """

    in_flight: int = 1024
    per_operation: int = 512
    vital: int = 8192
    queries: int = 1024
    per_caller: int | None = None
    bytes: int = 64 * MEBIBYTE
    batch: int = 256
    concurrent_batches: int = 2
    retry_after_ms: int = 100


class Caller:
    """What one caller has in flight of one kind."""

    __slots__ = ("bytes", "requests", "waiting")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self.waiting = 0
        """Answers that are not with the socket yet."""


class Ticket:
    """One admitted request: what it counts with, and for whom."""

    __slots__ = ("_budget", "_name", "_size", "caller")

    def __init__(self, budget: Budget, name: str, caller: Caller, size: int) -> None:
        self._budget = budget
        self._name = name
        self._size = size
        self.caller = caller

    def answered(self, size: int) -> None:
        """The work is done; from here on the answer counts, with its own size."""
        caller, budget, more = self.caller, self._budget, size - self._size
        caller.requests -= 1
        caller.waiting += 1
        caller.bytes += more
        budget.requests -= 1
        budget.bytes += more
        self._size = size

    def sent(self) -> None:
        """The answer is with the socket, or nobody wants it."""
        caller, budget = self.caller, self._budget
        caller.waiting -= 1
        caller.bytes -= self._size
        budget.bytes -= self._size
        budget.let_one_on()
        if not (caller.requests or caller.waiting):
            budget.forget(self._name)


class Budget:
    """What may be in flight of one kind of requests."""

    def __init__(self, name: str, requests: int, size: int, per_caller: int | None) -> None:
        self.name = name
        self.requests = 0
        self.bytes = 0
        self._limit = requests
        self._limit_of_all = requests + max(1, requests // ALPHA)
        self._share = per_caller or max(1, requests // 4)
        self._bytes_of_all = size
        self._bytes_limit = size * ALPHA // (ALPHA + 1)
        self._bytes_share = size // 4
        self._callers: dict[str, Caller] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def callers(self) -> int:
        """How many have something in flight."""
        return len(self._callers)

    def admit(self, name: str, size: int) -> Ticket | str:
        """Take a request of a caller on; or which limit is in the way."""
        caller = self._callers.get(name)
        if caller is None:
            if self.requests >= self._limit_of_all:
                return self.name
            if self.bytes + size > self._bytes_of_all and self.bytes:
                return "bytes"
            caller = self._callers[name] = Caller()
        elif refused := self._refused(caller, size):
            return refused
        caller.requests += 1
        caller.bytes += size
        self.requests += 1
        self.bytes += size
        return Ticket(self, name, caller, size)

    async def room(self) -> None:
        """Wait until answers that are ready are with the socket, where they are too many bytes.

        How large an answer is shows when it is made; those who have been admitted make theirs then.
        """
        while self.bytes > self._bytes_of_all:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def let_one_on(self) -> None:
        """One of those that wait for room looks again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def is_small(self, name: str, free: int) -> bool:
        """Whether a caller has little in flight, as what is left of something is divided."""
        caller = self._callers.get(name)
        return free > 0 and (caller is None or caller.requests < ALPHA * free)

    def forget(self, name: str) -> None:
        """Nothing of this caller is in flight any more."""
        self._callers.pop(name, None)

    def _refused(self, caller: Caller, size: int) -> str | None:
        held, free = caller.requests, self._limit_of_all - self.requests
        if held >= self._limit or free <= 0:
            return self.name
        if held != self.requests and held and held >= min(self._share, ALPHA * free):
            return "caller"
        space, held = self._bytes_of_all - self.bytes - size, caller.bytes
        if self.bytes and (space < 0 or (held and held + size > self._bytes_limit)):
            return "bytes"
        if held != self.bytes and held and held + size > min(self._bytes_share, ALPHA * space):
            return "caller_bytes"
        return None


class Admission:
    """The budgets of a process."""

    def __init__(self, limits: Limits) -> None:
        eighth, share = limits.bytes // 8, limits.per_caller
        self._of_operation = limits.per_operation
        self.commands = Budget("commands", limits.in_flight, 3 * eighth, share)
        self.queries = Budget("queries", limits.queries, 3 * eighth, share)
        self.vital = Budget("vital", limits.vital, 2 * eighth, share)

    def budget(self, declared: Declared) -> Budget:
        """The budget that the requests of an operation count in."""
        if declared.vital:
            return self.vital
        return self.commands if declared.kind == "command" else self.queries

    def is_full(self, budget: Budget, name: str, in_flight: int) -> bool:
        """Whether an operation has too much in work to take a request of this caller on.

        No operation takes a budget for itself; a third more is for callers that have little.
        """
        if in_flight < self._of_operation or budget is self.vital:
            return False
        most = self._of_operation + max(1, self._of_operation // ALPHA)
        return not budget.is_small(name, most - in_flight)


def caller_of(reply: str) -> str:
    """Who calls, as far as a reply subject tells: its first two tokens, ``_INBOX.<connection>``.

    Clients make them once for a connection and add a token for each request. Where somebody uses
    an inbox for each request only the budgets bound it; requests without a reply subject are those
    of one caller.
    """
    end = reply.find(".", reply.find(".") + 1)
    return reply if end < 0 else reply[:end]
