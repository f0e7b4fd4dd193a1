"""Arranges that an operation can be called with its example: what that names is made before.

Where an entity is not as the example needs it, commands about such an entity are tried, until one
leads there: what is found is known from then on, and gone again for each further call.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity
from bus.contract.page import item_of
from bus.contract.schemas import example_of
from bus.running.registry import Bound, Registry
from tests.bus.asking import Asker, Got
from tests.laws.calling.bodies import (
    Body,
    choices,
    is_command,
    is_rehearsed,
    is_uuid,
    makers,
    makes,
    named,
    own,
    own_field,
    references,
    smallest,
    variants,
)
from tests.laws.calling.making import Making, NotMade, Row, Scene

OUT_OF_REACH = {
    "db.daily_summaries.compute": "a run on the day",
    "db.initiatives.approve": "the review of all its phases",
    "db.initiatives.request_changes": "the review of all its phases",
    "db.phases.approve_review": "an initiative whose phases are reviewed",
    "db.phases.request_changes": "an initiative whose phases are reviewed",
    "db.tasks.accept_late": "a result that came too late",
}
"""Operations whose examples are refused here, for want of this: no two commands lead there."""

STEPS = 2
"""So many commands may lead from an entity as it is made to what an example needs."""

LISTED = 7
"""So many of an entity there are at least, when it is listed."""


@dataclass(frozen=True)
class Way:
    """How an entity is made, and the commands that it is then given."""

    maker: Bound | None = None
    """None for what is made along with what it belongs to."""
    given: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Bound, ...] = ()
    leads_to: Any = None
    """The status of the entity at its end."""


class Arrangement:
    """Calls to operations that are answered, in one database."""

    def __init__(self, ask: Asker, db: AsyncConnection, registry: Registry) -> None:
        self._ask = ask
        self._making = Making(ask, db, registry)
        self._registry = registry
        self._commands = [b for b in registry.operations.values() if is_command(b)]
        self._ways: dict[type[Entity], list[Way]] = {}
        self._finding: dict[type[Entity], AsyncIterator[Way]] = {}
        self._known: dict[str, Way] = {}
        self._standing: dict[str, Body] = {}
        self._listed: set[type[Entity]] = set()

    async def body(self, bound: Bound) -> Body:
        """The example of an operation, about what there is now and what nobody else uses."""
        entity = own(bound)
        if entity is None:
            return await self._about_nothing(bound)
        if bound.subject not in self._known:
            self._known[bound.subject] = await self._search(bound, entity)
        body = await self._body(bound, entity, self._known[bound.subject])
        assert body is not None, f"what led to {bound.subject} once leads there no longer"
        return body

    async def standing(self, bound: Bound) -> Body:
        """The same each time: for calls that change nothing."""
        if bound.subject not in self._standing:
            self._standing[bound.subject] = await self.body(bound)
        return self._standing[bound.subject]

    async def listing(self, bound: Bound) -> Body:
        """What a list is asked with: as little as it takes, where there is something to list."""
        entity = item_of(bound.declared.reply)
        if entity is not None and entity not in self._listed and makers(self._registry, entity):
            self._listed.add(entity)
            scene = Scene()
            for _ in range(LISTED):
                await self._making.make(entity, scene)
        body = await self.standing(bound)
        return {name: body[name] for name in smallest(bound)}

    async def value_of(self, bound: Bound, name: str) -> Any:
        """A value of a filter: one of the example or of what is listed; None if there is none."""
        if (target := named(name)) is not None:
            return (await self._making.make(target, Scene()))["id"]
        if name in example_of(bound.operation):
            return (await self.standing(bound))[name]
        page = await self._ask(bound.subject, await self.listing(bound) | {"limit": 500})
        found = [item[name] for item in page.body["items"] if item.get(name) is not None]
        counted = choices(bound.operation.model_fields[name].annotation)
        return next((value for value in (*found, *counted)), None)

    async def _about_nothing(self, bound: Bound) -> Body:
        """The example of an operation that is not about an entity which its request names."""
        body = await self._making.filled(bound, example_of(bound.operation), Scene())
        if is_uuid(body.get("id")) and bound.operation.model_fields["id"].is_required():
            some = (await self._ask(f"db.{bound.declared.noun}.list", {"limit": 1})).body["items"]
            return body | {"id": some[0]["id"]}
        reply = bound.declared.reply
        if issubclass(reply, Entity) and not makes(bound):
            await self._making.make(reply, Scene())
        return body

    async def _search(self, bound: Bound, entity: type[Entity]) -> Way:
        """The first way after which an operation is answered, else the first of all."""
        expected = None
        async for way in self._all_ways(entity):
            if expected and way.leads_to and way.leads_to not in expected:
                continue
            body = await self._body(bound, entity, way)
            got = None if body is None else await self._try(bound, body)
            if bound.subject in OUT_OF_REACH or (got is not None and got.status == 200):
                return way
            if got is not None and got.type == "invalid_transition":
                expected = got.body["expected"] if got.body["entity"] == entity.noun else None
        return self._ways[entity][0]

    async def _body(self, bound: Bound, entity: type[Entity], way: Way) -> Body | None:
        """The example about an entity at the end of a way; None if the way does not go there."""
        example, scene = example_of(bound.operation), Scene()
        if own_field(bound) is None and way.maker is not None:
            # It is found by other fields: it is made with what the example says of them.
            makes_with = entity.model_fields.keys() & way.maker.operation.model_fields.keys()
            names = {n: self._making.fresh(n, v) for n, v in example.items() if n in makes_with}
            way = replace(way, given={**way.given, **names})
        try:
            row = await self._gone(entity, way, scene)
            return await self._making.filled(bound, example, scene, row)
        except NotMade:
            return None

    async def _gone(self, entity: type[Entity], way: Way, scene: Scene) -> Row:
        """An entity at the end of a way."""
        row = await self._making.make(entity, scene, way.given, way.maker)
        for step in way.steps:
            body = await self._step(step, entity, row, scene)
            if body is None or (await self._ask(step.subject, body)).status != 200:
                raise NotMade
            row = await self._making.row(entity, row["id"])
        return row

    async def _all_ways(self, entity: type[Entity]) -> AsyncIterator[Way]:
        """The ways that are known, then those that are found."""
        known = self._ways.setdefault(entity, [])
        finding = self._finding.setdefault(entity, self._find(entity))
        place = 0
        while True:
            if place == len(known):
                if (way := await anext(finding, None)) is None:
                    return
                known.append(way)
            yield known[place]
            place += 1

    async def _find(self, entity: type[Entity]) -> AsyncIterator[Way]:
        """Every way to make an entity, then those that lead on from each state, by a command."""
        made = makers(self._registry, entity)
        ways = [Way(maker, given) for maker in made for given in variants(maker, entity)]
        ways = ways or [Way()]
        seen: set[Any] = set()
        for steps in range(STEPS + 1):
            further = []
            for way in ways:
                scene = Scene()
                try:
                    row = await self._gone(entity, way, scene)
                except NotMade:
                    continue
                yield replace(way, leads_to=row.get("status"))
                if steps < STEPS and (state := _state(row)) not in seen:
                    seen.add(state)
                    leading = await self._leading(entity, row, scene)
                    further += [replace(way, steps=(*way.steps, step)) for step in leading]
            ways = further

    async def _leading(self, entity: type[Entity], row: Row, scene: Scene) -> list[Bound]:
        """The commands that an entity takes in the state in which it is."""
        given = [(b, await self._step(b, entity, row, scene)) for b in self._commands]
        steps = [(bound, body) for bound, body in given if body is not None]
        tried = await asyncio.gather(*(self._try(bound, body) for bound, body in steps))
        return [b for (b, _), got in zip(steps, tried, strict=True) if got.status == 200]

    async def _step(
        self, bound: Bound, entity: type[Entity], row: Row, scene: Scene
    ) -> Body | None:
        """What a command is given so that it is about an entity; None if it cannot be."""
        example = example_of(bound.operation)
        if own(bound) is entity and own_field(bound):
            return await self._making.filled(bound, example, scene, row)
        fields = references(bound)
        about = {name: row["id"] for name, target in fields.items() if target is entity}
        within = {name: row[name] for name in fields if row.get(name)}
        if own(bound) is not None or not (about or within):
            return None
        return await self._making.filled(bound, example, scene) | about | within

    async def _try(self, bound: Bound, body: Body) -> Got:
        return await self._ask(bound.subject, body, dry_run=is_rehearsed(bound))


def _state(row: Row) -> Any:
    """What tells states apart: the status, and which of the other fields have a value."""
    return row.get("status"), frozenset(name for name, value in row.items() if value)
