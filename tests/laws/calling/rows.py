"""What a database holds."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

OF_THE_SERVICE = {"bus.pulse", "bus.sweeps"}
"""Tables that change although nobody calls."""

TABLES = """
    SELECT n.nspname || '.' || t.relname
    FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 1
"""

Contents = dict[str, tuple[int, int | None]]


class Rows:
    """Looks at all tables at once, the outbox among them: how many rows each has, and a hash."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db
        self._query = ""

    async def contents(self) -> Contents:
        """Equal to what it was before if no row has changed, come or gone."""
        found = await self._db.execute(text(self._query or await self._made()))
        return {name: (rows, hashed) for name, rows, hashed in found}

    async def _made(self) -> str:
        names = (await self._db.execute(text(TABLES))).scalars()
        looks = [
            f"SELECT '{name}', count(*), sum(hashtextextended(t::text, 0)) FROM {name} t"
            for name in names
            if name not in OF_THE_SERVICE
        ]
        self._query = " UNION ALL ".join(looks)
        return self._query
