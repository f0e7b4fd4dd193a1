"""A database in miniature, with the snapshots, xids and sequences of PostgreSQL, and a relay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleetbus.server.relay.holes import Cursor, Hole, Step, View, step


class Row(NamedTuple):
    position: int
    xid: int


@dataclass(eq=False)
class Transaction:
    xid: int | None = None
    positions: list[int] = field(default_factory=list)
    began_taking: int = 0
    committed_at: int = 0


class Database:
    def __init__(self, *, xid_first: bool = True) -> None:
        self._xid_first = xid_first
        self._next_xid = 1
        self._latest_completed = 0
        self._position = 0
        self._clock = 0
        self.running: list[Transaction] = []
        self.committed: list[Transaction] = []

    def begin(self) -> Transaction:
        self.running.append(Transaction())
        return self.running[-1]

    def assign(self, transaction: Transaction) -> int:
        if transaction.xid is None:
            transaction.xid = self._next_xid
            self._next_xid += 1
        return transaction.xid

    def take(self, transaction: Transaction) -> None:
        if self._xid_first:
            self.assign(transaction)
        self._clock += 1
        self._position += 1
        transaction.began_taking = transaction.began_taking or self._clock
        transaction.positions.append(self._position)

    def jump(self, distance: int) -> None:
        self._position += distance

    def end(self, transaction: Transaction, *, commit: bool) -> None:
        self.running.remove(transaction)
        if transaction.positions:
            self.assign(transaction)
        if transaction.xid is not None:
            self._latest_completed = max(self._latest_completed, transaction.xid)
        if commit:
            self._clock += 1
            transaction.committed_at = self._clock
            self.committed.append(transaction)

    def save(self) -> int:
        """A small transaction of the relay's own; its xid."""
        saving = self.begin()
        xid = self.assign(saving)
        self.end(saving, commit=True)
        return xid

    @property
    def xmax(self) -> int:
        return self._latest_completed + 1

    @property
    def xmin(self) -> int:
        owners = (transaction.xid or self.xmax for transaction in self.running)
        return min(self.xmax, *owners, self.xmax)

    @property
    def rows(self) -> list[Row]:
        return sorted(
            Row(position, transaction.xid or 0)
            for transaction in self.committed
            for position in transaction.positions
        )


def look(database: Database, cursor: Cursor, page: int, lookahead: int) -> View[Row]:
    """What the relay's statement shows: the first rows, and the rest of their transactions."""
    rows = database.rows
    wanted = [row for row in rows if is_wanted(cursor, row.position)]
    shown = wanted[:page]
    if len(shown) < page:
        return View(shown, database.xmin)
    xids = {row.xid for row in shown}
    ahead = [row for row in rows if row.position > shown[-1].position][:lookahead]
    rest = [row for row in ahead if row.xid in xids and is_wanted(cursor, row.position)]
    return View([*shown, *rest], database.xmin, shown[-1].position)


Look = Callable[[Database, Cursor, int, int], View[Row]]


def is_wanted(cursor: Cursor, position: int) -> bool:
    return any(first <= position <= last for first, last in cursor.wanted)


def bounded_by_own_xid(database: Database, cursor: Cursor, _: View[Row]) -> Cursor:
    return cursor.bounded(database.save())


@dataclass
class Relay:
    """The relay with the parts that matter exchangeable, so that broken ones can be shown."""

    database: Database
    look: Look = look
    decide: Callable[[Cursor, View[Row]], Step[Row]] = step
    bound: Callable[[Database, Cursor, View[Row]], Cursor] = bounded_by_own_xid
    cursor: Cursor = field(default_factory=Cursor)
    saved: Cursor = field(default_factory=Cursor)
    reads_ahead: bool = False
    ahead: View[Row] | None = None
    stream: list[Row] = field(default_factory=list)

    def work(self, page: int, lookahead: int = 10_000, crash_after: int | None = None) -> bool:
        """One page; true if anything changed. A crash comes after so many transactions."""
        view, was_read_ahead = self.ahead, self.ahead is not None
        if view is None:
            view = self.look(self.database, self.cursor, page, lookahead)
        decided = self.decide(self.cursor, view)
        self.ahead = None
        if self.reads_ahead and view.examined is not None:
            self.ahead = self.look(self.database, decided.cursor, page, lookahead)
        self._publish(decided.transactions[:crash_after])
        if crash_after is not None:
            self._restart()
            return True
        changed = decided.cursor != self.cursor
        if changed:
            self.cursor = self.bound(self.database, decided.cursor, view)
            self.saved = self.cursor
        return changed or was_read_ahead

    def _publish(self, transactions: Sequence[Sequence[Row]]) -> None:
        """Append what the stream does not hold; it tells duplicates by their ids."""
        held = set(self.stream)
        self.stream += [row for rows in transactions for row in rows if row not in held]

    def _restart(self) -> None:
        holes = tuple(Hole(hole.first, hole.last) for hole in self.saved.holes)
        resumed = Cursor(self.saved.position, holes)
        self.cursor = resumed.bounded(self.database.save())
        self.ahead = None
