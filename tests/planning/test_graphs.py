"""What depends on what: one graph for tasks and for phases, the same as sets of pairs would say."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.cycles import find_cycle
from bus.storage import Graph
from persistence.planning.phase_graph import PHASE_GRAPH
from persistence.planning.tables import phase, task
from persistence.planning.task_graph import TASK_GRAPH
from persistence.planning.task_order import ORDER, Node
from persistence.planning.task_order import Kind as NodeKind
from tests.planning.arrange import add_initiative, add_phase, add_task

SIZE = 6


@dataclass(frozen=True)
class Kind:
    """One of the kinds of entity that depend on each other."""

    graph: Graph
    nodes: Table
    add: Callable[[AsyncConnection, UUID, int], Awaitable[UUID]]
    waits: NodeKind
    """The node of the order that stands for what waits."""


async def _add_task(db: AsyncConnection, initiative_id: UUID, position: int) -> UUID:
    return await add_task(db, initiative_id=initiative_id, position=position)


async def _add_phase(db: AsyncConnection, initiative_id: UUID, position: int) -> UUID:
    return await add_phase(db, initiative_id, position=position)


KINDS = {
    "tasks": Kind(TASK_GRAPH, task, _add_task, "task"),
    "phases": Kind(PHASE_GRAPH, phase, _add_phase, "begun"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@dataclass
class Model:
    """What is expected: the nodes in the order of their positions, who waits for what, what is
    finished."""

    nodes: list[UUID]
    edges: set[tuple[UUID, UUID]]
    finished: set[UUID]

    def unfinished(self, id_: UUID) -> list[UUID]:
        return [n for n in self.nodes if (id_, n) in self.edges and n not in self.finished]

    def into(self, ids: set[UUID]) -> list[tuple[UUID, UUID]]:
        return sorted((a, b) for a, b in self.edges if b in ids and a not in ids)


@pytest.fixture(params=range(3))
async def model(request: pytest.FixtureRequest, db: AsyncConnection, kind: Kind) -> Model:
    random = Random(request.param)
    initiative = await add_initiative(db)
    places = random.sample(range(SIZE), SIZE)
    ids = [await kind.add(db, initiative, place) for place in places]
    nodes = [id_ for _, id_ in sorted(zip(places, ids, strict=True))]
    every = [(one, other) for one in ids for other in ids if one != other]
    made = Model(nodes, set(random.sample(every, 8)), set(random.sample(ids, 2)))
    await kind.graph.add(db, made.edges)
    finish = update(kind.nodes).where(kind.nodes.c.id.in_(made.finished))
    await db.execute(finish.values(status="completed"))
    return made


class TestGraph:
    async def test_what_is_waited_for(self, db: AsyncConnection, kind: Kind, model: Model) -> None:
        waits = select(kind.nodes.c.id).where(kind.graph.waits(kind.nodes.c.id))
        waiting = set((await db.execute(waits)).scalars())
        for id_ in model.nodes:
            expected = model.unfinished(id_)
            assert await kind.graph.unfinished(db, id_, "position") == expected
            assert (id_ in waiting) == bool(expected)

    async def test_what_waits(self, db: AsyncConnection, kind: Kind, model: Model) -> None:
        ids = set(model.nodes[:4])
        assert any({*edge} <= ids for edge in model.edges), "some depend on each other"
        of = {one for one, other in model.edges if other in ids}
        assert await kind.graph.lock_dependents(db, ids) == sorted(of)
        assert await kind.graph.into(db, ids) == model.into(ids)
        touching = [edge for edge in model.edges if ids & {*edge}]
        assert await kind.graph.count(db, ids) == len(touching)

    async def test_one_is_removed(self, db: AsyncConnection, kind: Kind, model: Model) -> None:
        gone = model.edges.pop()
        assert await kind.graph.remove(db, *gone)
        assert not await kind.graph.remove(db, *gone)
        assert await edges_of(db, kind, model) == model.edges

    async def test_some_are_let_go_of(self, db: AsyncConnection, kind: Kind, model: Model) -> None:
        ids, others = set(model.nodes[:2]), set(model.nodes[2:4])
        await kind.graph.remove_into(db, ids, others)
        left = {(a, b) for a, b in model.edges if not (a in others and b in ids)}
        assert await edges_of(db, kind, model) == left

    async def test_circles(self, db: AsyncConnection, kind: Kind, model: Model) -> None:
        expected: dict[UUID, list[UUID]] = {id_: [] for id_ in model.nodes}
        for one, other in model.edges:
            expected[one].append(other)
        changed = [Node(kind.waits, id_) for id_ in model.nodes]

        found = [node.id for node in await ORDER.circle(db, changed)]

        assert bool(found) == bool(find_cycle(expected))
        steps = [(one, other) for one, other in pairwise(found) if one != other]
        assert set(steps) <= model.edges
        assert found[:1] == found[-1:]

    async def test_nothing_is_added_of_nothing(self, db: AsyncConnection, kind: Kind) -> None:
        await kind.graph.add(db, [])
        assert await kind.graph.count(db, []) == 0


async def edges_of(db: AsyncConnection, kind: Kind, model: Model) -> set[tuple[UUID, UUID]]:
    found = set()
    for id_ in model.nodes:
        found |= {(one, other) for one, other in await kind.graph.into(db, [id_])}
    return found
