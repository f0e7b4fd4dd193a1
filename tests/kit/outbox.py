"""The events that were emitted, as a test asks for them."""

from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ALL = text("SELECT position, type, entity_id, data, cause FROM bus.outbox ORDER BY position")


class Emitted(NamedTuple):
    """An event as its transaction recorded it."""

    position: int
    type: str
    entity_id: str
    data: Any
    cause: str | None


class Outbox:
    """Reads the table each time it is asked, in the order of positions."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def all(self, *types: str) -> list[Emitted]:
        """The events of these types; of all if none is named."""
        rows = (Emitted(*row) for row in await self._db.execute(_ALL))
        return [event for event in rows if not types or event.type in types]

    async def count(self, *types: str) -> int:
        return len(await self.all(*types))

    async def types(self, *, besides: tuple[str, ...] = ()) -> list[str]:
        return [event.type for event in await self.all() if event.type not in besides]

    async def ids(self, *types: str) -> list[str]:
        """What these events are about."""
        return [event.entity_id for event in await self.all(*types)]

    async def data(self, *types: str) -> list[Any]:
        return [event.data for event in await self.all(*types)]

    async def last(self, *types: str) -> Emitted:
        return (await self.all(*types))[-1]

    async def of(self, entity_id: object) -> list[Emitted]:
        return [event for event in await self.all() if event.entity_id == str(entity_id)]
