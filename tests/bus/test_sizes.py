"""Nothing that is stored makes its entity, or an event that tells of it, larger than a message."""

import asyncio
import json
import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.event import EVENTS, Event
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from bus.storage.shortening import shorten
from bus.storage.sizes import FACT_ROOM, HEADER_ROOM, SLACK, limit
from contracts.planning.tasks import Task
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps
from tests.bus.asking import Asker, Got, assert_problem, count_of
from tests.kit.outbox import Outbox

MESSAGE = 1024 * 1024
ROOM = MESSAGE - HEADER_ROOM
WIDE = "\x1b"
"""A character of one byte, of which JSON makes six."""


async def registered(ask: Asker, **fields: Any) -> str:
    agent = await ask("db.agents.register", {"name": "big"} | fields)
    assert agent.status == 200
    return str(agent.body["id"])


async def beat(ask: Asker, agent: str, characters: int) -> Got:
    progress = {"screen": WIDE * characters}
    return await ask("db.agents.heartbeat", {"id": agent, "incarnation": 1, "progress": progress})


async def legacy_task(db: AsyncConnection, size: int) -> UUID:
    """A task that somebody stored when messages could be larger."""
    id_ = uuid7()
    await db.execute(
        text(
            "INSERT INTO planning.tasks (id, name, description, status, attempt) "
            "VALUES (:id, 'large', repeat('x', :size), 'in_progress', 1)"
        ),
        {"id": id_, "size": size},
    )
    return id_


class TestProgress:
    @pytest.mark.parametrize("characters", [100_000, 170_000])
    async def test_too_much_of_it_is_refused_and_the_agent_lives(
        self, ask: Asker, db: AsyncConnection, characters: int
    ) -> None:
        agent = await registered(ask)
        before = (await ask("db.agents.get", {"id": agent})).body

        got = await beat(ask, agent, characters)

        assert_problem(got, 413, "entity_too_large")
        assert got.body["bytes"] > got.body["limit"]
        after = (await ask("db.agents.get", {"id": agent})).body
        assert after["lease_expires_at"] > before["lease_expires_at"]
        assert after["progress"] is None

    async def test_the_crash_of_an_agent_with_the_most_of_it_can_be_told(
        self,
        ask: Asker,
        db: AsyncConnection,
        outbox: Outbox,
        service: Service,
        registry: Registry,
    ) -> None:
        agent = await registered(ask, heartbeat_interval_s=1)
        tasks_ = [(await ask("db.tasks.create", {"name": f"t{n}"})).body["id"] for n in range(3)]
        for _ in tasks_:
            assert (await ask("db.tasks.claim", {"agent_id": agent})).status == 200
        most = 84_500
        while (await beat(ask, agent, most)).status != 200:
            most -= 100
        await db.execute(text("UPDATE agents.agents SET lease_expires_at = now() - interval '1 s'"))

        due = [t for t in sweeps(registry, service.settings) if t.name == "expire_agent_leases"]
        sweeper = Sweeper(registry, service.database, due)
        await sweeper._attempt(due[0])

        assert most > 80_000
        told = {row.type: row for row in await outbox.all()}
        crashed = told["agent.crashed"].data
        assert crashed["agent"]["progress"] == crashed["progress"] == {"screen": WIDE * most}
        assert len(crashed["tasks"]) == 3
        assert MESSAGE * 0.9 < len(json.dumps(crashed, separators=(",", ":"))) < ROOM


class TestCommands:
    """Whatever the shape of its handler, a command that makes too much stores nothing."""

    @pytest.mark.parametrize(
        ("subject", "body"),
        [
            ("db.tasks.create", {"name": "a", "description": WIDE * 90_000}),
            ("db.projects.create", {"name": "a", "url": "u:", "description": WIDE * 90_000}),
            (
                "db.tasks.create_many",
                {"items": [{"name": "a"}, {"name": "b", "description": WIDE * 90_000}]},
            ),
        ],
    )
    async def test_what_is_new(
        self, ask: Asker, db: AsyncConnection, subject: str, body: Any
    ) -> None:
        got = await ask(subject, body, key="once")

        assert_problem(got, 413, "entity_too_large")
        for table in ("planning.tasks", "planning.projects", "bus.outbox", "bus.requests"):
            assert await count_of(db, table) == 0

    async def test_what_is_changed(self, ask: Asker) -> None:
        task = (await ask("db.tasks.create", {"name": "a"})).body

        got = await ask("db.tasks.update", {"id": task["id"], "description": WIDE * 90_000})

        assert_problem(got, 413, "entity_too_large")
        assert (await ask("db.tasks.get", {"id": task["id"]})).body == task

    async def test_one_of_a_batch_harms_no_other(self, ask: Asker) -> None:
        large = {"name": "a", "description": WIDE * 90_000}
        asked = [ask("db.tasks.create", large if n == 3 else {"name": "a"}) for n in range(8)]

        assert sorted(got.status for got in await asyncio.gather(*asked)) == [200] * 7 + [413]

    async def test_late_results_never_make_a_task_too_large(self, ask: Asker) -> None:
        task = (await ask("db.tasks.create", {"name": "a"})).body["id"]
        attempt = (await ask("db.tasks.claim", {"agent_id": "w"})).body["tasks"][0]["task"]
        await ask("db.tasks.release", {"id": task, "attempt": attempt["attempt"], "reason": "r"})
        for n in range(12):
            late = {"id": task, "attempt": attempt["attempt"], "summary": f"{n}" + "y" * 19_000}
            late["result"] = {"out": "z" * 60_000}
            assert (await ask("db.tasks.complete", late)).status == 409

        found = await ask("db.tasks.get", {"id": task})

        assert 1 < len(found.body["late_results"]) < 12
        assert len(found.data) <= ROOM // 2


class TestIndexes:
    """What no index takes is the request's fault, not ours."""

    async def test_an_address_of_too_many_bytes(self, ask: Asker) -> None:
        letters = random.Random(7).choices(range(0x4E00, 0x9FA5), k=1_900)
        url = "https://" + "".join(map(chr, letters))

        got = await ask("db.projects.create", {"name": "a", "url": url})

        assert_problem(got, 400, "invalid_request")


async def test_many_small_steps_do_not_lead_past_the_limit(ask: Asker) -> None:
    characters = limit(Task, MESSAGE) // 6 - 200
    task = (await ask("db.tasks.create", {"name": "t", "description": WIDE * characters})).body

    statuses = []
    for step in range(1, 80):
        description = WIDE * (characters + 40 * step)
        got = await ask("db.tasks.update", {"id": task["id"], "description": description})
        statuses.append(got.status)

    assert set(statuses) == {200, 413}
    stored = await ask("db.tasks.get", {"id": task["id"]})
    assert len(stored.data) <= limit(Task, MESSAGE) + SLACK


class TestStoredBefore:
    """What is too large already can be ended, made smaller, looked at and passed."""

    async def test_it_can_be_completed(self, ask: Asker, db: AsyncConnection) -> None:
        task = await legacy_task(db, 1_200_000)

        got = await ask("db.tasks.complete", {"id": str(task), "attempt": 1})

        assert (got.status, got.body["status"]) == (200, "completed")
        assert got.headers["Fleet-Shortened"] == "true"

    async def test_it_can_be_made_shorter(self, ask: Asker, db: AsyncConnection) -> None:
        task = await legacy_task(db, 1_200_000)

        got = await ask("db.tasks.update", {"id": str(task), "description": "short"})

        assert (got.status, got.body["description"]) == (200, "short")
        assert "Fleet-Shortened" not in got.headers

    async def test_it_cannot_be_made_longer(self, ask: Asker, db: AsyncConnection) -> None:
        task = await legacy_task(db, 600_000)

        got = await ask(
            "db.tasks.complete", {"id": str(task), "attempt": 1, "summary": "y" * 10_000}
        )

        assert_problem(got, 413, "entity_too_large")

    async def test_it_can_be_got_and_deleted(self, ask: Asker, db: AsyncConnection) -> None:
        task = await legacy_task(db, 1_200_000)

        got = await ask("db.tasks.get", {"id": str(task)})

        assert (got.status, got.headers["Fleet-Shortened"]) == (200, "true")
        assert got.body["description"] == "x" * 1_000 + "…"
        assert (await ask("db.tasks.delete", {"id": str(task)})).status == 200

    async def test_it_keeps_no_other_from_being_listed(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        ids = [str(await legacy_task(db, size)) for size in (10, 1_200_000, 20, 1_300_000)]

        found, marks, cursor = [], [], None
        while True:
            page = await ask("db.tasks.list", {"cursor": cursor} if cursor else {})
            assert page.status == 200
            found += [item["id"] for item in page.body["items"]]
            marks.append(page.headers.get("Fleet-Shortened"))
            if (cursor := page.body["next_cursor"]) is None:
                break

        assert found == ids
        assert marks.count("true") == 2


class TestPages:
    @pytest.mark.parametrize("limit", [1, 3, 500])
    async def test_a_page_ends_before_it_is_too_large(
        self, ask: Asker, db: AsyncConnection, limit: int
    ) -> None:
        ids = [str(await legacy_task(db, 300_000)) for _ in range(8)]

        found: list[str] = []
        body: dict[str, Any] = {"limit": limit, "order": "created_at"}
        while True:
            page = await ask("db.tasks.list", body)
            assert page.status == 200
            assert 0 < len(page.body["items"]) <= 3
            found += [item["id"] for item in page.body["items"]]
            if page.body["next_cursor"] is None:
                break
            body["cursor"] = page.body["next_cursor"]

        assert found == ids


class TestReplies:
    """A reply that tells of several entities is told in a short form where it is too large."""

    async def test_agents_behind_one_connection_can_be_suspected(self, ask: Asker) -> None:
        names = [f"agent {n}" for n in range(4)]
        for name in names:
            agent = await registered(ask, name=name, connection_name="one")
            assert (await beat(ask, agent, 80_000)).status == 200

        got = await ask("db.agents.suspect", {"connection_name": "one"})

        assert (got.status, got.headers["Fleet-Shortened"]) == (200, "true")
        assert [agent["name"] for agent in got.body["agents"]] == names
        assert all(agent["suspected_at"] for agent in got.body["agents"])

    @examples(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 40_000), min_size=1, max_size=12), st.integers(3_000, 60_000))
    def test_whatever_is_large_a_short_form_fits_and_is_valid(
        self, sizes: list[int], room: int
    ) -> None:
        late = [
            {"attempt": n, "summary": WIDE * size, "result": {"x": WIDE * size}}
            | {"received_at": "2026-01-01T00:00:00Z"}
            for n, size in enumerate(sizes)
        ]
        task = json.loads(TASK) | {"description": WIDE * sizes[0], "late_results": late}

        short = shorten(Task, json.dumps(task).encode(), room + 1_200 * 6 * (len(sizes) + 1))

        assert len(short) <= room + 1_200 * 6 * (len(sizes) + 1)
        told = Task.model_validate_json(short)
        assert (told.id, len(told.late_results)) == (UUID(task["id"]), len(sizes))


TASK = """{"id": "0199c0de-0000-7000-8000-0000000000a1", "version": 1, "initiative_id": null,
"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "phase_id": null,
"parent_task_id": null, "name": "a", "description": null, "type": "auto", "category": "execute",
"priority": "low", "status": "pending", "position": 0, "summary": null, "result": null,
"retry_count": 0, "blocked_reason": null, "external_ref": null, "claimed_by": null, "attempt": 0,
"lease_expires_at": null, "late_results": []}"""


class TestFacts:
    """An event adds so little to its entity that both fit."""

    def test_parts_of_the_entity_and_bounded_facts(self) -> None:
        assert 2 * max(limit(event_entity(e), MESSAGE) for e in EVENTS.values()) + FACT_ROOM <= ROOM

    @pytest.mark.parametrize("type_", sorted(EVENTS))
    def test_texts_and_lists_have_a_bound(self, type_: str) -> None:
        event = EVENTS[type_]
        facts = {n: f for n, f in event.model_fields.items() if n != event.fact.entity}

        unbounded = [n for n, f in facts.items() if "list" in str(f.annotation) and not f.metadata]

        assert set(unbounded) <= ASKED_FOR.get(type_, set())


ASKED_FOR = {
    "check.started": {"workers"},
    "initiative.created": {"project_ids"},
    "initiative.projects_changed": {"added", "removed"},
    "task.created": {"depends_on"},
}
"""Lists that only a command tells, which is refused where its event does not fit."""


def event_entity(event: type[Event]) -> Any:
    return event.model_fields[event.fact.entity].annotation


class TestNumbers:
    """PostgreSQL writes them without exponents, so they count so."""

    @pytest.mark.parametrize("number", [1e307, -1e307, 5e-324])
    async def test_a_few_are_taken_and_read_as_they_were_answered(
        self, ask: Asker, number: float
    ) -> None:
        agent = await registered(ask)
        beat = {"id": agent, "incarnation": 1, "progress": {"x": [number] * 3}}
        assert (await ask("db.agents.heartbeat", beat)).status == 200
        stored = (await ask("db.agents.get", {"id": agent})).body
        [listed] = (await ask("db.agents.list")).body["items"]
        assert stored["progress"] == listed["progress"]
        assert [float(one) for one in stored["progress"]["x"]] == [number] * 3

    async def test_many_are_refused(self, ask: Asker) -> None:
        agent = await registered(ask)
        beat = {"id": agent, "incarnation": 1, "progress": {"x": [1e307] * 3_000}}
        got = await ask("db.agents.heartbeat", beat)
        assert_problem(got, 400, "invalid_request")
        assert len((await ask("db.agents.get", {"id": agent})).data) < 2_000

    async def test_what_is_answered_is_what_is_stored(self, ask: Asker) -> None:
        task = (await ask("db.tasks.create", {"name": "t"})).body["id"]
        await ask("db.tasks.claim", {"agent_id": "a"})
        done = await ask("db.tasks.complete", {"id": task, "result": {"n": 1e40, "m": 0.5}})
        assert done.body["result"] == (await ask("db.tasks.get", {"id": task})).body["result"]
        assert b"1" + b"0" * 40 in done.data
