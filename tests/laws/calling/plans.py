"""How PostgreSQL would run a statement where tables are too large to be read or sorted whole."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from asyncpg import Connection

Node = dict[str, Any]

LEADING = "SELECT pg_get_indexdef(oid, 1, true) FROM pg_class WHERE relname = $1"


class Plans:
    """Asks for plans on a connection on which reading or sorting a table is the last resort.

    So a plan that does either has no other way, however small the table is today. Rows of one value
    may be sorted by id, as an index of unique values has them: that is an incremental sort.
    """

    def __init__(self, connection: "Connection[Any]") -> None:
        self._connection = connection

    async def prepare(self) -> None:
        for way in ("seqscan", "sort"):
            await self._connection.execute(f"SET enable_{way} = off")

    async def whole(self, statement: str, values: Sequence[Any]) -> list[str]:
        """What a statement must do with a whole table: read it, sort it."""
        nodes = await self._nodes(statement, values)
        return [n["Node Type"] for n in nodes if n["Node Type"] in {"Seq Scan", "Sort"}]

    async def is_led_by_an_index(self, statement: str, values: Sequence[Any]) -> bool:
        """Whether a condition of a statement is on the first column of an index."""
        for node in await self._nodes(statement, values):
            if "Index Cond" in node:
                first = await self._connection.fetchval(LEADING, node["Index Name"])
                if f"({first} " in node["Index Cond"]:
                    return True
        return False

    async def _nodes(self, statement: str, values: Sequence[Any]) -> list[Node]:
        found = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *values)
        return list(_all(json.loads(found)[0]["Plan"]))


def _all(node: Node) -> Iterator[Node]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _all(inner)
