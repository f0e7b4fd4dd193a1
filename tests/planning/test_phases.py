import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    AlreadyExists,
)
from bus.kit.ids import uuid7
from contracts.planning.phases import (
    CreatePhase,
    DeletePhase,
    GetPhase,
    ListPhases,
    ReorderPhases,
    UnblockPhase,
    UpdatePhase,
)
from contracts.planning.tasks import AddTaskDependency, DifferentInitiatives
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import a_lone_phase, depend_on_phase, two_phases


class TestCreatePhase:
    async def test_pending_and_behind_the_last(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus)
        assert (one.version, one.status, one.position, two.position) == (1, "pending", 1, 2)
        assert await bus.call(GetPhase(id=one.id)) == one
        assert await outbox.types() == ["initiative.created", "phase.created", "phase.created"]

    async def test_with_everything(self, bus: Bus) -> None:
        content = {"type": "doc", "content": [{"type": "paragraph"}]}
        made = await a_lone_phase(
            bus, content=content, position=-3, merge_base="5f2c1e9", external_ref="epic-1"
        )
        assert (made.content, made.position, made.merge_base) == (content, -3, "5f2c1e9")
        assert await bus.call(GetPhase(id=made.id)) == made

    @pytest.mark.parametrize("status", ["approved", "in_progress", "completed"])
    async def test_status_of_a_plan_under_way(self, bus: Bus, outbox: Outbox, status: str) -> None:
        assert (await a_lone_phase(bus, status=status)).status == status
        done = ["initiative.pending_review"] if status == "completed" else []
        assert await outbox.types() == ["initiative.created", "phase.created", *done]

    async def test_blocked_with_its_reason(self, bus: Bus) -> None:
        made = await a_lone_phase(bus, status="blocked", blocked_reason="deferred")
        assert (await bus.call(UnblockPhase(id=made.id))).status == "pending"

    @pytest.mark.parametrize("fields", [{"status": "blocked"}, {"blocked_reason": "why"}])
    async def test_a_reason_goes_with_blocked(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="blocked_reason"):
            CreatePhase(initiative_id=uuid7(), name="x", **fields)

    async def test_external_ref_is_unique_within_the_initiative(self, bus: Bus) -> None:
        one = await a_lone_phase(bus, external_ref="epic-1")
        await a_lone_phase(bus, external_ref="epic-1")
        with pytest.raises(AlreadyExists):
            await arrange.a_phase(bus, one.initiative_id, external_ref="epic-1")

    async def test_many_at_once_have_places_of_their_own(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        made = await asyncio.gather(
            *(arrange.a_phase(bus, initiative.id, f"phase {n}") for n in range(8))
        )
        assert sorted(each.position for each in made) == list(range(1, 9))

    async def test_behind_the_largest_position(self, bus: Bus) -> None:
        one = await a_lone_phase(bus, position=2**31 - 1)
        assert (await arrange.a_phase(bus, one.initiative_id)).position == 2**31 - 1


class TestListPhases:
    async def test_pages_in_one_statement(self, bus: Bus, statements: Any) -> None:
        one, two = await two_phases(bus)
        third = await arrange.a_phase(bus, one.initiative_id, "third", position=0)
        await a_lone_phase(bus)
        with statements() as counted:
            first = await bus.call(ListPhases(initiative_id=one.initiative_id, limit=2))
        assert counted.total == 1
        assert first.items == [third, one]
        rest = await bus.call(
            ListPhases(initiative_id=one.initiative_id, limit=2, cursor=first.next_cursor)
        )
        assert (rest.items, rest.next_cursor) == ([two], None)

    async def test_filters(self, bus: Bus) -> None:
        one = await a_lone_phase(bus, external_ref="epic-1")
        two = await a_lone_phase(bus, status="approved")
        assert (await bus.call(ListPhases(external_ref="epic-1"))).items == [one]
        assert (await bus.call(ListPhases(status="approved"))).items == [two]
        assert len((await bus.call(ListPhases(order="-name"))).items) == 2


class TestUpdatePhase:
    async def test_what_is_left_out_stays_and_null_clears(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus, content={"type": "doc"}, merge_base="5f2c1e9")
        updated = await bus.call(UpdatePhase(id=made.id, content=None, position=9))
        assert (updated.version, updated.content, updated.position) == (2, None, 9)
        assert (updated.name, updated.merge_base) == (made.name, "5f2c1e9")
        assert (await outbox.types())[-1] == "phase.updated"

    async def test_nothing_changed_tells_nothing(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus, content={"b": 1, "a": [True, {}]})
        same = UpdatePhase(id=made.id, content={"a": [True, {}], "b": 1})
        assert await bus.call(same) == made
        assert (await outbox.types())[-1] == "phase.created"

    async def test_true_is_not_one(self, bus: Bus) -> None:
        made = await a_lone_phase(bus, content={"a": 1})
        updated = await bus.call(UpdatePhase(id=made.id, content={"a": True}))
        assert (updated.version, updated.content) == (2, {"a": True})
        assert (await bus.call(GetPhase(id=made.id))).content == {"a": True}


class TestReorderPhases:
    async def test_the_named_come_first(self, bus: Bus, outbox: Outbox) -> None:
        a, b = await two_phases(bus)
        c = await arrange.a_phase(bus, a.initiative_id, "c")

        sequence = await bus.call(ReorderPhases(ids=[c.id, a.id]))

        assert sequence.ids == [c.id, a.id, b.id]
        assert set(sequence.moved) == {a.id, b.id, c.id}
        page = await bus.call(ListPhases(initiative_id=a.initiative_id))
        assert [(each.id, each.position, each.version) for each in page.items] == [
            (c.id, 1, 2),
            (a.id, 2, 2),
            (b.id, 3, 2),
        ]
        assert (await outbox.types()).count("phase.updated") == 3

    async def test_in_order_already(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus)
        sequence = await bus.call(ReorderPhases(ids=[one.id, two.id]))
        assert (sequence.ids, sequence.moved) == ([one.id, two.id], [])
        assert "phase.updated" not in await outbox.types()

    async def test_of_two_initiatives(self, bus: Bus) -> None:
        with pytest.raises(DifferentInitiatives):
            await bus.call(
                ReorderPhases(ids=[(await a_lone_phase(bus)).id, (await a_lone_phase(bus)).id])
            )


class TestDeletePhase:
    async def test_tasks_and_dependencies_go_along(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        one, two = await two_phases(bus)
        await depend_on_phase(bus, two, one)
        parent = await arrange.add_task_of(db, one)
        await arrange.add_task_of(db, two, parent_task_id=parent)
        await arrange.add_task_of(db, two)

        deletion = await bus.call(DeletePhase(id=one.id))

        assert (deletion.deleted.tasks, deletion.deleted.dependencies) == (2, 1)
        left = await db.execute(text("SELECT count(*) FROM planning.tasks"))
        assert left.scalar_one() == 1
        data = (await outbox.last("phase.deleted")).data
        assert data["deleted"] == {"tasks": 2, "dependencies": 1}
        assert (data["phase"]["id"], data["phase"]["version"]) == (str(one.id), 2)

    async def test_what_waited_for_it_waits_no_longer(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        one, two = await two_phases(bus, status="approved")
        other = await arrange.a_phase(bus, one.initiative_id, "pending")
        running = await arrange.a_phase(bus, one.initiative_id, "running", status="in_progress")
        for dependent in (two, other):
            await depend_on_phase(bus, dependent, one)
        waiting = await arrange.add_task_of(db, running, "pending")
        needed = await arrange.add_task_of(db, one, "pending")
        await bus.call(AddTaskDependency(id=waiting, depends_on_task_id=needed))
        before = len(await outbox.types())

        await bus.call(DeletePhase(id=one.id))

        rows = (await outbox.all())[before:]
        assert [(row.type, row.entity_id) for row in rows] == [
            ("phase.deleted", str(one.id)),
            ("phase.updated", str(two.id)),
            ("phase.updated", str(other.id)),
            ("phase.dispatchable", str(two.id)),
            ("task.dependency_removed", str(waiting)),
            ("task.ready", str(waiting)),
        ]
        assert [row.data["phase"]["version"] for row in rows[1:4]] == [3, 3, 3]
        assert (await bus.call(GetPhase(id=two.id))).version == 3

    async def test_what_waits_for_another_one_still_does(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus, status="approved")
        third = await arrange.a_phase(bus, one.initiative_id, "third", status="approved")
        for needed in (one, two):
            await depend_on_phase(bus, third, needed)

        await bus.call(DeletePhase(id=one.id))

        assert "phase.dispatchable" not in await outbox.types()
