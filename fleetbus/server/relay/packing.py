"""What of a page is published at once: whole transactions, bounded by number and by bytes."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bus.storage.own.outbox import OutboxRow
from fleetbus.server.relay.events import BATCH_LIMIT, part_of, parts, weight_of

PAGE_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the bodies in a page, at most, but for the rest of transactions that began in it."""

_TOGETHER: Final = 8 * 1024 * 1024
"""Bytes up to which small transactions are handled together."""


class Part(NamedTuple):
    """Events of one transaction that enter the stream together, and which part of it they are."""

    rows: list[OutboxRow]
    part: str


def packed(transactions: Sequence[Sequence[OutboxRow]]) -> Iterator[list[Part]]:
    """Transactions in order, as many at a time as are published at once."""
    together: list[Part] = []
    count = size = 0
    for rows in transactions:
        divided = parts(rows)
        for number, part in enumerate(divided, start=1):
            weight = sum(map(weight_of, part))
            if together and (count + len(part) > BATCH_LIMIT or size + weight > _TOGETHER):
                yield together
                together, count, size = [], 0, 0
            together.append(Part(part, part_of(number, len(divided))))
            count += len(part)
            size += weight
    if together:
        yield together


def bounded(
    rows: list[OutboxRow], examined: int | None, limit: int = PAGE_BYTES
) -> tuple[list[OutboxRow], int | None]:
    """A page without what is too much at once, and up to where none of it is missing.

    The transactions that begin in it stay whole.
    """
    size = 0
    for place, row in enumerate(rows):
        size += weight_of(row)
        if size > limit and place:
            cut = rows[place - 1].position
            if examined is not None and examined <= cut:
                break
            begun = {row.xid for row in rows[:place]}
            kept = [row for row in rows[place:] if row.xid in begun]
            return [*rows[:place], *kept], cut
    return rows, examined
