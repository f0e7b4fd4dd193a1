"""Mistakes that a system like this one could have; each takes a piece out of the sound one.

They exist to check the checker: a harness that does not find them proves nothing about the sound
code. Production code knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from nats.aio.client import Client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.transaction import Transaction
from bus.storage.own import commit as _commit
from bus.storage.own import outbox as _outbox
from bus.storage.own.commit import KeptReply, Written
from bus.storage.own.outbox import OutboxRow
from fleetbus.server.relay import leader, publisher
from fleetbus.server.relay.events import Message, message
from fleetbus.server.relay.holes import Cursor, Step, View, step
from fleetbus.server.relay.leader import Leader
from fleetbus.server.relay.publisher import FencedPublisher
from fleetbus.server.relay.reconciler import Reconciler
from fleetbus.server.relay.sending import send
from fleetbus.server.service import Service

BROKEN: dict[str, Callable[[], None]] = {}

FENCE = "Nats-Expected-Last-Sequence"


def broken(install: Callable[[], None]) -> Callable[[], None]:
    """Declare a mistake; its name is the function's."""
    BROKEN[install.__name__] = install
    return install


def _put(owner: Any, name: str, value: Any) -> None:
    """Replace something that is there; a mistake in what is not there would be none."""
    assert hasattr(owner, name), name
    setattr(owner, name, value)


def unmended() -> None:
    """No mistake: the reconciler does not compare, so whatever a mistake loses stays lost."""

    async def nothing(_: Reconciler) -> bool:
        return False

    _put(Reconciler, "step", nothing)
    _put(Reconciler, "finish", nothing)


@broken
def bare_cursor() -> None:
    """The relay remembers the highest position and forgets the holes below it."""

    def forgetful(cursor: Cursor, view: View[OutboxRow]) -> Step[OutboxRow]:
        sound = step(cursor, view)
        return replace(sound, cursor=replace(sound.cursor, holes=()))

    _put(leader, "step", forgetful)


@broken
def impatient_holes() -> None:
    """Holes are given up at the second look, whoever may still own them."""
    _put(Cursor, "bounded", lambda cursor, _: _bounded(cursor, 0))


_bounded = Cursor.bounded


@broken
def publish_before_commit() -> None:
    """Events are published as soon as they are written, and then comes the COMMIT."""
    clients: list[Client] = []
    serve, commit = Service._serve, Transaction.commit

    async def remember(service: Service) -> None:
        clients.append(service.client)
        await serve(service)

    async def publish(tx: Transaction) -> None:
        for row in await _own_rows(tx.db):
            made = message(row, "fleetbus")
            js = clients[0].jetstream()
            await js.publish(made.subject, made.body, headers=made.headers)
        await commit(tx)

    _put(Service, "_serve", remember)
    _put(Transaction, "commit", publish)


_OWN_ROWS = text("""
    SELECT position, CAST(CAST(xid AS text) AS bigint), CAST(event_id AS text), type, entity_id,
           CAST(data AS text), cause, traceparent, recorded_at
    FROM bus.outbox WHERE xid = pg_current_xact_id() ORDER BY position
""")


async def _own_rows(db: AsyncConnection) -> list[OutboxRow]:
    return [OutboxRow(*row) for row in (await db.execute(_OWN_ROWS)).all()]


@broken
def mark_before_acknowledgement() -> None:
    """The relay notes how far it has come in the outbox, and publishes then."""
    advance, publish, save = Leader.advance, FencedPublisher.publish, _outbox.save_relay_state
    later: list[tuple[Any, int]] = []

    async def promise(_: FencedPublisher, transactions: Any, after: int) -> int:
        later.append((transactions, after))
        return after + sum(map(len, transactions))

    async def mark(conn: AsyncConnection, cursor: int, holes: Any, sequence: int) -> int:
        return await save(conn, cursor, holes, later[0][1] if later else sequence)

    async def then(self: Leader) -> bool:
        more = await advance(self)
        while later:
            await publish(self.publisher, *later.pop(0))  # type: ignore[arg-type]  # there is no other
        return more

    _put(FencedPublisher, "publish", promise)
    _put(_outbox, "save_relay_state", mark)
    _put(Leader, "advance", then)


@broken
def no_drain() -> None:
    """A process that is told to stop leaves what it has taken."""

    async def leave(_: Service) -> bool:
        return True

    _put(Service, "_drain", leave)


@broken
def no_fence() -> None:
    """The relay publishes without saying where the stream has to end."""
    request = FencedPublisher._request

    async def answered(
        self: FencedPublisher, told: Message, headers: dict[str, str]
    ) -> dict[str, Any]:
        return await request(self, _without_fence(told), _unfenced(headers))

    async def unanswered(client: Client, messages: Iterable[Message]) -> None:
        await send(client, map(_without_fence, messages))

    _put(FencedPublisher, "_request", answered)
    _put(publisher, "send", unanswered)


def _without_fence(told: Message) -> Message:
    return told._replace(headers=_unfenced(told.headers))


def _unfenced(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != FENCE}


@broken
def reply_outside_transaction() -> None:
    """The idempotency row is written after the COMMIT of the work, not with it."""
    append, commit = Transaction.append, Transaction.commit

    async def later(
        tx: Transaction,
        caller: str,
        events: Sequence[bytes],
        replies: Sequence[KeptReply],
        **more: Any,
    ) -> Written:
        tx.replies = caller, replies  # type: ignore[attr-defined]  # kept for the commit below
        return await append(tx, caller, events, [], **more)

    async def then(tx: Transaction) -> None:
        await commit(tx)
        caller, replies = getattr(tx, "replies", ("", []))
        if replies:
            await _commit.write(tx.db, caller, replies=replies)

    _put(Transaction, "append", later)
    _put(Transaction, "commit", then)


@broken
def delete_on_acknowledgement() -> None:
    """What the stream has acknowledged is deleted from the outbox at once."""
    publish = Leader._publish

    async def and_delete(self: Leader, transactions: list[list[OutboxRow]]) -> int:
        sequence = await publish(self, transactions)
        positions = [row.position for rows in transactions for row in rows]
        await self.conn.execute(
            text("DELETE FROM bus.outbox WHERE position = ANY(:positions)"),
            {"positions": positions},
        )
        return sequence

    _put(Leader, "_publish", and_delete)
