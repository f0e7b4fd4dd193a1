"""One unit of work: BEGIN, what was told meanwhile, the outbox and idempotency rows, COMMIT."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pydantic_core
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.event import Event
from bus.handling.decisions import Emit
from bus.handling.shapes import Handling
from bus.kit.ids import uuid7_hex
from bus.running.undeclared import report_event
from bus.storage import entities as _entities
from bus.storage.database import Database
from bus.storage.driver import Compiled, driver_of
from bus.storage.entities import Changes
from bus.storage.outages import is_outage
from bus.storage.own import commit as _commit
from bus.storage.own.commit import KeptReply, Written


class CommitUnknown(Exception):
    """The connection was lost during COMMIT: nobody knows yet whether it took effect."""


class KeyTaken(Exception):
    """Another transaction stored a reply for one of the keys meanwhile."""


@dataclass(slots=True)
class Told:
    """An event with what caused it."""

    event: Event
    cause: str | None
    traceparent: str | None


class Transaction:
    """An open transaction; only the bus commits it."""

    def __init__(self, db: AsyncConnection, raw: Any) -> None:
        self.db = db
        self.now: datetime
        self.loaded: dict[str, dict[Any, Any]] = {}
        """What was read with the clock, by the name of the parameter that wants it."""
        self.told: list[Told] = []
        self.audited: list[bytes] = []
        """What is to be put on record, each a JSON object."""
        self.changes: Changes | None = None
        """What is to be written before anything else reads."""
        self.wrote = False
        self.strict = False
        """Whether what a handler does not declare fails it, rather than be logged."""
        self._raw = raw
        self._state: Literal["open", "committing", "done"] = "open"

    def emitter(self, handling: Handling, cause: str | None, traceparent: str | None) -> Emit:
        """The ``emit`` of a handler: what it emits is stored when the transaction commits."""
        declared = handling.may_emit

        def emit(event: Event) -> None:
            if type(event) not in declared:
                report_event(handling, event, strict=self.strict)
            self.told.append(Told(event, cause, traceparent))

        return emit

    def outbox_rows(self, told: Sequence[Told] | None = None) -> list[bytes]:
        """The outbox rows of everything told, or of some of it, each a JSON object."""
        return [_outbox_row(one) for one in (self.told if told is None else told)]

    async def save(self) -> None:
        """Write the changes, where something is going to read that may need to see them."""
        changes, self.changes = self.changes, None
        if changes:
            await _entities.write(self.db, changes)

    async def append(
        self,
        caller: str,
        events: Sequence[bytes],
        replies: Sequence[KeptReply],
        *,
        unless: Mapping[Compiled, Sequence[Any]] | None = None,
    ) -> Written:
        """Write changes and rows of the bus; the changes alone if a condition holds."""
        changes, self.changes = self.changes, None
        if not (changes or events or replies or self.audited):
            return Written(None, 0)
        written = await _commit.write(
            self.db,
            caller,
            changes=changes,
            events=events,
            audited=self.audited,
            replies=replies,
            unless=unless,
        )
        if not written.found:
            self.audited = []
        if written.kept != len(replies) and not written.found:
            raise KeyTaken
        return written

    async def check(self) -> None:
        """Ask now for what would be asked at the COMMIT, where none is to come."""
        await self._raw.execute("SET CONSTRAINTS ALL IMMEDIATE")

    async def commit(self) -> None:
        """COMMIT; a connection lost meanwhile is ``CommitUnknown``."""
        self._state = "committing"
        try:
            done = await self._raw.execute("COMMIT")
        except BaseException as error:
            if is_outage(error) or isinstance(error, asyncio.CancelledError):
                raise CommitUnknown from error
            self._state = "open"
            raise
        self._state = "done"
        if done != "COMMIT":
            # Postgres answers COMMIT of a failed transaction with ROLLBACK, which is no error.
            raise RuntimeError("an error of the database was swallowed inside the transaction")

    @property
    def over(self) -> bool:
        """Whether it was committed, rolled back or cut off."""
        return self._state == "done"

    @property
    def unsettled(self) -> bool:
        """Whether a COMMIT was sent whose answer did not come."""
        return self._state == "committing"

    async def rollback(self) -> None:
        """ROLLBACK, unless it is over already."""
        if self._state == "open":
            self._state = "done"
            await self._raw.execute("ROLLBACK")

    def cut_off(self) -> None:
        """End the connection at once, and with it the transaction, without waiting for anyone."""
        self._state = "done"
        self._raw.terminate()


_PLANNED_ONCE = "; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off"
"""A lock by ids would be planned each time, which takes longer than running it. A plan made while
a table was new and empty would go on scanning it when it has grown: these all have an index."""


@contextlib.asynccontextmanager
async def begin(
    database: Database,
    *,
    left: Callable[[], float],
    lock_timeout: float | None = None,
    planned_once: bool = False,
    vital: bool = False,
) -> AsyncIterator[Transaction]:
    """A transaction that is rolled back unless it commits.

    ``left`` tells the seconds that a statement may take, once there is a connection.
    ``lock_timeout`` is what it may wait for a lock. The statements of a batch of a decider are
    ``planned_once``, for an index.
    """
    async with database.connection(vital=vital) as db:
        timeout = _milliseconds(left())
        settings = f"BEGIN; SET LOCAL statement_timeout = {timeout}{database.settings}"
        if lock_timeout is not None:
            settings += f"; SET LOCAL lock_timeout = {_milliseconds(lock_timeout)}"
        if planned_once:
            settings += _PLANNED_ONCE
        raw = driver_of(db)
        await raw.execute(settings)
        transaction = Transaction(db, raw)
        try:
            yield transaction
        except asyncio.CancelledError:
            transaction.cut_off()
            raise
        finally:
            if not transaction.over:
                await asyncio.shield(_settle(transaction, db))


async def _settle(transaction: Transaction, db: AsyncConnection) -> None:
    """Leave no transaction open on a connection that goes back to the pool."""
    try:
        if transaction.unsettled:
            transaction.cut_off()
            await db.invalidate()
        else:
            await transaction.rollback()
    except Exception:  # noqa: BLE001  whatever it was, the connection is not fit for reuse
        with contextlib.suppress(Exception):
            await db.invalidate()


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _outbox_row(told: Told) -> bytes:
    event = told.event
    head = {
        "event_id": uuid7_hex(),
        "type": event.fact.type,
        "entity_id": event.entity_id,
        "cause": told.cause,
        "traceparent": told.traceparent,
    }
    return pydantic_core.to_json(head)[:-1] + b',"data":' + event.encoded() + b"}"
