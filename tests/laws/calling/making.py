"""Makes what an operation is called with: bodies whose ids and names are those of what there is.

Everything is made over the bus, by the operations themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity
from bus.kit.ids import uuid7
from bus.running.registry import Bound, Registry
from bus.storage import TABLES
from tests.bus.asking import Asker
from tests.laws.calling.bodies import (
    Body,
    is_uuid,
    makers,
    makes,
    named,
    own,
    own_field,
    smallest,
    unique_texts,
)

NO_TIME = {"timeout_ms": 1}
"""How long a query that waits does so here."""

Row = dict[str, Any]


@dataclass
class Scene:
    """What was made for one call: a field that is named again names the same."""

    made: dict[tuple[str, Any], Any] = field(default_factory=dict)


class NotMade(Exception):
    """What was to be made is refused."""


class Making:
    """Makes entities, and bodies about them."""

    def __init__(self, ask: Asker, db: AsyncConnection, registry: Registry) -> None:
        self._ask = ask
        self._db = db
        self._registry = registry
        self._numbers = count(1)

    async def make(
        self,
        entity: type[Entity],
        scene: Scene,
        given: Mapping[str, Any] | None = None,
        maker: Bound | None = None,
    ) -> Row:
        """A new entity as its table holds it, with the fields that are given and those it needs."""
        candidates = [maker] if maker else makers(self._registry, entity)
        if not candidates:
            return await self._part(entity, scene)
        for bound in candidates:
            body = await self.filled(bound, smallest(bound), scene)
            for name, value in (given or {}).items():
                refers = isinstance(value, type)
                body[name] = await self._reference(name, value, scene) if refers else value
            if "id" in bound.operation.model_fields:
                body["id"] = f"{body['id']}-{next(self._numbers)}" if "id" in body else str(uuid7())
            got = await self._ask(bound.subject, body)
            if got.status == 200:
                return await self.row(entity, body.get("id") or got.body["id"])
        raise NotMade

    async def row(self, entity: type[Entity], id_: Any) -> Row:
        """An entity as its table holds it."""
        query = text(f"SELECT to_jsonb(t) FROM {TABLES[entity].fullname} t WHERE id::text = :id")
        row: Row | None = (await self._db.execute(query, {"id": str(id_)})).scalar_one_or_none()
        if row is None:
            raise NotMade
        return row

    async def filled(self, bound: Bound, body: Body, scene: Scene, row: Row | None = None) -> Body:
        """A body with the ids and names of what there is, about this row if about any."""
        key = own_field(bound)
        filled = {}
        for name, value in (body | NO_TIME if "timeout_ms" in body else body).items():
            if row is not None and name == "expected_version":
                filled[name] = row["version"]
            elif row is not None and name == key:
                filled[name] = await self._own(value, bound, row, scene)
            elif row is not None and key is None and name in row:
                filled[name] = row[name]
            else:
                filled[name] = await self._value(name, value, scene, renamed=makes(bound))
        return filled

    def fresh(self, name: str, value: Any) -> Any:
        """A text that nothing has yet, where it must be unique."""
        if name not in unique_texts() or not isinstance(value, str):
            return value
        number = next(self._numbers)
        return f"{value}-{number}" if "://" in value else f"{number}-{value}"

    async def _own(self, value: Any, bound: Bound, row: Row, scene: Scene) -> Any:
        """The id of a row where a body has one id, or with as many more as it has several."""
        entity = own(bound)
        if entity is None or not isinstance(value, list):
            return row["id"]
        more = [await self.make(entity, scene) for _ in value[1:]]
        return [row["id"], *(one["id"] for one in more)]

    async def _value(
        self, name: str, value: Any, scene: Scene, *, renamed: bool, place: int = 0
    ) -> Any:
        """A value of a body; ``renamed`` says that nothing may have its ids and names yet."""
        if isinstance(value, dict):
            return {
                key: await self._value(key, inner, scene, renamed=renamed)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [
                await self._value(name, inner, scene, renamed=renamed, place=index)
                for index, inner in enumerate(value)
            ]
        if (entity := named(name)) and isinstance(value, str):
            return await self._reference(name, entity, scene, place)
        if renamed and is_uuid(value):
            return scene.made.setdefault(("", value), str(uuid7()))
        return self.fresh(name, value) if renamed else value

    async def _reference(
        self, name: str, entity: type[Entity], scene: Scene, place: int = 0
    ) -> Any:
        """The id that a field holds; made where nothing of this call has named it yet."""
        known = scene.made
        if (name, place) not in known:
            known[name, place] = (await self.make(entity, scene))["id"]
        return known[name, place]

    async def _part(self, entity: type[Entity], scene: Scene) -> Row:
        """Of what is only made along with what it belongs to: the first one of a new whole."""
        table = TABLES[entity]
        for key in table.foreign_keys:
            whole = next(e for e, held in TABLES.items() if held is key.column.table)
            row = await self.make(whole, scene)
            query = f"SELECT id FROM {table.fullname} WHERE {key.parent.name} = :id LIMIT 1"
            id_ = (await self._db.execute(text(query), {"id": row["id"]})).scalar_one_or_none()
            if id_ is not None:
                return await self.row(entity, id_)
        raise NotMade
