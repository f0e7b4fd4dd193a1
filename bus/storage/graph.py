"""Dependencies among entities of one kind, and the order of things of several kinds.

What waits has a row for each entity that it waits for, in a table of edges with both their ids. It
waits as long as one of these is not finished.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Exists,
    Select,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.kit.cycles import cycle_through
from bus.storage.driver import Compiled, compiled, execute, fetch, numbered
from bus.storage.locks import AdvisoryLock
from bus.storage.tables import TABLES

N = TypeVar("N", bound=tuple[str, UUID])

_ID = bindparam("id", type_=Uuid)
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_OTHERS = bindparam("others", type_=ARRAY(Uuid))
_DEPENDS_ON = bindparam("depends_on", type_=Uuid)


class Graph:
    """Entities that depend on others of their kind, by a table of edges.

    An edge of tasks has ``task_id``, which waits, and ``depends_on_task_id``, which it waits for.
    """

    def __init__(self, entity: type[Entity], edges: Table, *, finished: str = "completed") -> None:
        self._nodes = nodes = TABLES[entity]
        self._edges = edges
        self._waiting = waiting = edges.c[f"{entity.noun}_id"]
        self._awaited = awaited = edges.c[f"depends_on_{entity.noun}_id"]
        # Written into the texts: a plan for any value could not use the partial indexes.
        self._finished: ColumnElement[str] = literal_column(f"'{finished}'")

        self.dependencies = nodes.c.id.in_(self.dependencies_of(_ID))
        """Whether a row is what ``id`` depends on."""
        self.dependents = nodes.c.id.in_(select(waiting).where(awaited == _ID))
        """Whether a row depends on ``id``."""
        self.have_dependents = compiled(self.dependents_of(_IDS))
        """What depends on any of ``ids``."""
        self.adding = self._adding()
        """Lets the first of each of ``pairs`` depend on the second."""
        these, on_these = waiting == func.any(_IDS), awaited == func.any(_IDS)
        self._count = compiled(select(func.count()).select_from(edges).where(or_(these, on_these)))
        self._remove = compiled(delete(edges).where(waiting == _ID, awaited == _DEPENDS_ON))
        self._into = compiled(
            select(waiting.label("waiting"), awaited.label("awaited"))
            .where(on_these, waiting != func.all(_IDS))
            .order_by(waiting, awaited)
        )
        self._remove_into = compiled(delete(edges).where(on_these, waiting == func.any(_OTHERS)))

    def dependencies_of(self, id_: Any) -> Select[tuple[UUID]]:
        """The ids of what this depends on."""
        return select(self._awaited).where(self._waiting == id_)

    def dependents_of(self, ids: Any) -> Select[tuple[UUID]]:
        """The ids of what depends on any of these."""
        return select(self._waiting).where(self._awaited == func.any(ids))

    def waits(self, id_: ColumnElement[Any]) -> Exists:
        """Whether what has this id depends on anything that is not finished."""
        other = self._nodes.alias("other")
        return exists().where(
            self._waiting == id_,
            other.c.id == self._awaited,
            other.c.status != self._finished,
        )

    def edges(self, kind: str) -> str:
        """What an ``Order`` asks for the dependencies of a node ``n``, as nodes of a kind."""
        return (
            f"SELECT CAST('{kind}' AS text) AS kind, d.{self._awaited.name} AS id "
            f"FROM {self._edges.fullname} d WHERE d.{self._waiting.name} = n.id"
        )

    async def add(self, db: AsyncConnection, pairs: Iterable[tuple[UUID, UUID]]) -> None:
        """Let the first of each pair depend on the second."""
        if listed := list(pairs):
            await execute(db, self.adding, {"pairs": pairs_of(listed)})

    async def remove(self, db: AsyncConnection, id_: UUID, depends_on: UUID) -> bool:
        """Remove a dependency; returns whether there was one."""
        return bool(await execute(db, self._remove, {"id": id_, "depends_on": depends_on}))

    async def unfinished(self, db: AsyncConnection, id_: UUID, *order: str) -> list[UUID]:
        """What something waits for, in the order of these columns and of the ids."""
        nodes = self._nodes
        statement = (
            select(nodes.c.id)
            .join(self._edges, self._awaited == nodes.c.id)
            .where(self._waiting == id_, nodes.c.status != self._finished)
            .order_by(*(nodes.c[name] for name in order), nodes.c.id)
        )
        return list((await db.execute(statement)).scalars())

    async def lock_dependents(self, db: AsyncConnection, ids: Iterable[UUID]) -> list[UUID]:
        """Lock what depends on any of these; its fields may be long and stay where they are."""
        nodes = self._nodes
        statement = (
            select(nodes.c.id)
            .where(nodes.c.id.in_(self.dependents_of(list(ids))))
            .order_by(nodes.c.id)
            .with_for_update(key_share=True)
        )
        return list((await db.execute(statement)).scalars())

    async def count(self, db: AsyncConnection, ids: Collection[UUID]) -> int:
        """How many dependencies these have on others, and others on them."""
        [row] = await fetch(db, self._count, {"ids": list(ids)})
        return int(row[0])

    async def into(self, db: AsyncConnection, ids: Collection[UUID]) -> list[tuple[UUID, UUID]]:
        """The dependencies of others on these: who depends, and on what."""
        rows = await fetch(db, self._into, {"ids": list(ids)})
        return [(row["waiting"], row["awaited"]) for row in rows]

    async def remove_into(
        self, db: AsyncConnection, ids: Collection[UUID], others: Collection[UUID]
    ) -> None:
        """Let these others no longer depend on any of these."""
        await execute(db, self._remove_into, {"ids": list(ids), "others": list(others)})

    def _adding(self) -> Compiled:
        pairs = (
            func.json_to_recordset(cast(bindparam("pairs", type_=Text), JSON))
            .table_valued(column("waiting", Uuid), column("awaited", Uuid), name="p")
            .render_derived(with_types=True)
        )
        names = ["id", self._waiting.name, self._awaited.name]
        rows = select(func.uuidv7(), pairs.c.waiting, pairs.c.awaited)
        return compiled(insert(self._edges).from_select(names, rows))


def pairs_of(pairs: Iterable[tuple[UUID, UUID]]) -> str:
    """Who depends on what, as ``Graph.adding`` takes it."""
    return json.dumps([{"waiting": str(one), "awaited": str(other)} for one, other in pairs])


class Order(Generic[N]):
    """One graph over things of several kinds, in which whatever waits points at what for.

    ``edges`` asks for the ``kind`` and the ``id`` of what a node ``n`` waits for. Whoever changes
    what it follows from holds the lock, and looks for circles afterwards: of two that write half of
    one each, the later sees both.
    """

    def __init__(self, lock: AdvisoryLock, edges: str, node: Callable[[Any, UUID], N]) -> None:
        self._lock, self._node = lock, node
        self._around = numbered(_AROUND.format(edges=edges))

    async def lock(self, db: AsyncConnection, of: object) -> None:
        """Let nobody else change this order, as far as it is ``of`` this, until the end."""
        await self._lock.hold(db, of)

    async def circle(self, db: AsyncConnection, changed: Sequence[N]) -> list[N]:
        """A shortest circle through the first of these that is on one; empty if none of them is."""
        seeds = {"kinds": [kind for kind, _ in changed], "ids": [id_ for _, id_ in changed]}
        edges: defaultdict[N, list[N]] = defaultdict(list)
        for row in await fetch(db, self._around, seeds):
            node = self._node(row["kind"], row["id"])
            edges[node].append(self._node(row["on_kind"], row["on_id"]))
        return cycle_through(edges, changed)


# What the seeds wait for, directly or not, each with what it waits for itself. Nothing is returned
# unless it leads back to where it began: that is the usual case.
_AROUND = """
    WITH RECURSIVE
    seeds AS MATERIALIZED (
        SELECT s.kind, s.id
        FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS uuid[])) AS s (kind, id)
    ),
    reached AS (
        SELECT e.kind, e.id FROM seeds n CROSS JOIN LATERAL ({edges}) e
        UNION
        SELECT e.kind, e.id FROM reached n CROSS JOIN LATERAL ({edges}) e
    )
    SELECT n.kind, n.id, e.kind AS on_kind, e.id AS on_id
    FROM (SELECT r.kind, r.id FROM reached r UNION SELECT s.kind, s.id FROM seeds s) n
    CROSS JOIN LATERAL ({edges}) e
    WHERE EXISTS (SELECT FROM reached r JOIN seeds s ON s.kind = r.kind AND s.id = r.id)
"""
