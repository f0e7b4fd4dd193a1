"""The cursor with holes: which positions of the outbox the stream is still owed."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

LAST_POSITION: Final = 2**63 - 1


class Recorded(Protocol):
    """A row of the outbox, as far as the cursor cares."""

    @property
    def position(self) -> int: ...

    @property
    def xid(self) -> int: ...


Row = TypeVar("Row", bound=Recorded)


class Hole(NamedTuple):
    """Positions that were taken but not visible; `bound` is above the xid of whoever took them."""

    first: int
    last: int
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Every position up to `position` was relayed or given up, except the holes."""

    position: int = 0
    holes: tuple[Hole, ...] = ()

    @property
    def wanted(self) -> tuple[tuple[int, int], ...]:
        """The ranges to read next: the holes, and all that lies beyond the cursor."""
        holes = ((hole.first, hole.last) for hole in self.holes)
        return (*holes, (self.position + 1, LAST_POSITION))

    def bounded(self, xid: int) -> "Cursor":
        """Note beside new holes an xid that was assigned after the snapshot that showed them.

        Why not the snapshot's own xmax: that is one past the latest xid *completed*, and owners
        may be running with higher ones. Every owner has an xid below one assigned afterwards,
        because a transaction has its xid before it takes its first position.
        """
        holes = (hole._replace(bound=xid) if hole.bound is None else hole for hole in self.holes)
        return replace(self, holes=tuple(holes))


@dataclass(frozen=True, slots=True)
class View(Generic[Row]):
    """What one snapshot shows of the wanted positions.

    The rows are ordered by position. Up to `examined` none is missing; None: nowhere.
    `xmin` is the lowest xid that was still running, of the very same snapshot: with an older
    snapshot for the rows, a hole could be given up whose owner committed in between.
    """

    rows: Sequence[Row]
    xmin: int
    examined: int | None = None


@dataclass(frozen=True, slots=True)
class Step(Generic[Row]):
    """The transactions to publish, in this order, and the cursor once they are."""

    transactions: list[list[Row]]
    cursor: Cursor


def step(cursor: Cursor, view: View[Row]) -> Step[Row]:
    """Decide what follows from one look at the outbox."""
    positions = [row.position for row in view.rows]
    reached = max(cursor.position, positions[-1] if positions else 0)
    unseen = (
        rest
        for hole in (*cursor.holes, Hole(cursor.position + 1, reached))
        for rest in _without(hole, positions)
    )
    still_open = tuple(kept for hole in unseen for kept in _unless_given_up(hole, view))
    return Step(by_transaction(view.rows), Cursor(reached, still_open))


def _without(hole: Hole, positions: Sequence[int]) -> Iterator[Hole]:
    """The parts of a hole that have not appeared."""
    first = hole.first
    inside = slice(bisect_left(positions, hole.first), bisect_right(positions, hole.last))
    for position in positions[inside]:
        if first < position:
            yield hole._replace(first=first, last=position - 1)
        first = position + 1
    if first <= hole.last:
        yield hole._replace(first=first)


def _unless_given_up(hole: Hole, view: View[Row]) -> Iterator[Hole]:
    """Give up what was examined in a snapshot in which every possible owner had ended."""
    if hole.bound is None or view.xmin < hole.bound:
        yield hole
    elif view.examined is not None and view.examined < hole.last:
        yield hole._replace(first=max(hole.first, view.examined + 1))


def by_transaction(rows: Sequence[Row]) -> list[list[Row]]:
    """Group by xid, ordered by highest position.

    A transaction that saw another's work took all its positions after all of the other's.
    """
    transactions: dict[int, list[Row]] = {}
    for row in rows:
        transactions.setdefault(row.xid, []).append(row)
    return sorted(transactions.values(), key=lambda group: group[-1].position)
