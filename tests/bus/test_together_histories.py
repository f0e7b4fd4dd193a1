"""Together or one by one, a history of commands leaves the same rows and tells the same."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from tests.bus.asking import NOTE, Asker, add_tasks
from tests.bus.together import Step, execute

THERE, NEW = 3, 2
"""Tasks that are there already, and ids for others."""

VERBS = {
    "create": 4,
    "update": 3,
    "note": 3,
    "complete": 2,
    "block": 1,
    "retry": 1,
    "add_dependency": 3,
    "remove_dependency": 1,
    "delete": 1,
    "create_project": 2,
    "archive_project": 1,
}

STEPS = st.lists(
    st.tuples(
        st.sampled_from([verb for verb, weight in VERBS.items() for _ in range(weight)]),
        st.integers(0, THERE + NEW - 1),
        st.integers(0, THERE + NEW - 1),
    ),
    min_size=1,
    max_size=8,
)


TASKS = """
    SELECT to_json(t) FROM planning.tasks t WHERE id::text = ANY (:ids)
    ORDER BY array_position(:ids, id::text)
"""
PROJECTS = TASKS.replace("planning.tasks", "planning.projects")
EDGES = """
    SELECT json_build_array(task_id, depends_on_task_id) FROM planning.task_dependencies
    WHERE task_id::text = ANY (:ids)
    ORDER BY array_position(:ids, task_id::text), array_position(:ids, depends_on_task_id::text)
"""
TOLD = """
    SELECT json_build_object('type', type, 'data', data) FROM bus.outbox
    WHERE entity_id = ANY (:ids) AND coalesce(cause, '') NOT LIKE 'reaction:%'
    ORDER BY position
"""
LOOKS = (TASKS, PROJECTS, EDGES, TOLD)


@dataclass
class World:
    """What one of two runs is about: ids of its own."""

    run: str
    tasks: list[UUID]
    projects: list[UUID] = field(default_factory=lambda: [uuid7() for _ in range(THERE + NEW)])

    def step(self, verb: str, one: int, other: int) -> Step:
        id_ = str(self.tasks[THERE + one % NEW if verb == "create" else one])
        if verb == "note":
            return NOTE, {"id": id_, "note": str(other)}
        if verb == "create_project":
            body = {"id": str(self.projects[one]), "name": f"{self.run} {other}"}
            return "db.projects.create", body | {"url": f"https://example.org/{self.run}/{other}"}
        if verb == "archive_project":
            return "db.projects.archive", {"id": str(self.projects[other])}
        more = {
            "create": {"name": str(other)},
            "update": {"name": str(other)},
            "block": {"reason": "r"},
            "add_dependency": {"depends_on_task_id": str(self.tasks[other])},
            "remove_dependency": {"depends_on_task_id": str(self.tasks[other])},
        }
        return f"db.tasks.{verb}", {"id": id_, **more.get(verb, {})}

    def comparable(self, found: Any) -> Any:
        """The same without what differs between any two runs: ids, names and times."""
        if isinstance(found, dict):
            return {
                name: self.comparable(value)
                for name, value in found.items()
                if not name.endswith("_at")
            }
        if isinstance(found, list):
            return [self.comparable(one) for one in found]
        if not isinstance(found, str):
            return found
        for number, id_ in enumerate([*self.tasks, *self.projects]):
            found = found.replace(str(id_), f"id {number}")
        return found.replace(self.run, "run")

    async def look(self, db: AsyncConnection) -> Any:
        """Rows, and what commands told: what follows at the end is told once, not each time."""
        ids = [str(id_) for id_ in [*self.tasks, *self.projects]]
        found = [(await db.execute(text(query), {"ids": ids})).scalars().all() for query in LOOKS]
        return [self.comparable(list(rows)) for rows in found]


async def world(db: AsyncConnection) -> World:
    return World(f"run-{uuid7()}", [*await add_tasks(db, THERE), *(uuid7() for _ in range(NEW))])


async def agree(ask: Asker, db: AsyncConnection, history: list[tuple[str, int, int]]) -> None:
    """One by one, then together what could be done, then all of it if some could not."""
    alone, together, failing = [await world(db) for _ in range(3)]
    replies = [await ask(*alone.step(*one)) for one in history]
    said = [alone.comparable(json.loads(reply.data)) for reply in replies]
    done = [number for number, reply in enumerate(replies) if reply.status == 200]
    before = await failing.look(db)

    if done:
        got = await execute(ask, *(together.step(*history[number]) for number in done))
        assert together.comparable(got.body) == {"replies": [said[number] for number in done]}
    assert await together.look(db) == await alone.look(db)

    if len(done) < len(history):
        first = next(number for number in range(len(history)) if number not in done)
        got = await execute(ask, *(failing.step(*one) for one in history))
        place = {"operation": first, "subject": failing.step(*history[first])[0]}
        assert failing.comparable(got.body) == said[first] | place
        assert await failing.look(db) == before


class TestHistories:
    async def test_together_and_one_by_one_agree(self, ask: Asker, db: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()

        @hypothesis_settings(
            max_examples=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STEPS)
        def check(history: list[tuple[str, int, int]]) -> None:
            asyncio.run_coroutine_threadsafe(agree(ask, db, history), loop).result(30)

        await asyncio.to_thread(check)
