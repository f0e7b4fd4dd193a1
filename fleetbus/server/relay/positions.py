"""Sets and ranges of outbox positions."""

from typing import Final

from fleetbus.server.relay.holes import LAST_POSITION

Ranges = tuple[tuple[int, int], ...]
"""Ranges of positions, first and last included, in order."""

_BITS: Final = 1 << 16


class PositionSet:
    """Positions at a bit each: 1.25 MB for ten million neighbours."""

    def __init__(self) -> None:
        self.highest = 0
        self.count = 0
        self._blocks: dict[int, bytearray] = {}

    def add(self, position: int) -> None:
        """Put a position in."""
        self.highest = max(self.highest, position)
        number, bit = divmod(position, _BITS)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = bytearray(_BITS // 8)
        self.count += not block[bit >> 3] >> (bit & 7) & 1
        block[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, position: int) -> bool:
        number, bit = divmod(position, _BITS)
        block = self._blocks.get(number)
        return block is not None and bool(block[bit >> 3] >> (bit & 7) & 1)


def without(ranges: Ranges, holes: Ranges) -> Ranges:
    """The parts of the ranges that are in no hole."""
    for first, last in holes:
        sides = ((1, first - 1), (last + 1, LAST_POSITION))
        ranges = tuple(sorted(part for side in sides for part in within(ranges, *side)))
    return ranges


def within(ranges: Ranges, first: int, last: int) -> Ranges:
    """The parts of the ranges that lie between these positions."""
    clipped = ((max(first, start), min(last, end)) for start, end in ranges)
    return tuple((start, end) for start, end in clipped if start <= end)
