"""Ids of what one command makes many of."""

from uuid import UUID

_LOW = (1 << 62) - 1


def following_id(first: UUID, number: int) -> UUID:
    """The id that comes so many after the first; the same again when the command is repeated."""
    return UUID(int=(first.int & ~_LOW) | ((first.int + number) & _LOW))
