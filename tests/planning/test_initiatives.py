from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    AlreadyExists,
    InvalidRequest,
    InvalidTransition,
)
from bus.kit.ids import uuid7
from contracts.planning.initiatives import (
    ApproveInitiative,
    ArchiveInitiative,
    CreateInitiative,
    DeleteInitiative,
    FindInitiative,
    GetInitiative,
    GetInitiativeOverview,
    InitiativeNotFound,
    ListInitiatives,
    RequestInitiativeChanges,
    SetInitiativeProjects,
    TaskCounts,
    UnarchiveInitiative,
    UpdateInitiative,
)
from contracts.planning.phases import CompletePhase, ListPhases
from contracts.planning.projects import CreateProject, ListProjects
from contracts.planning.tasks import ListTasks
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange


async def projects(bus: Bus, *names: str) -> list[UUID]:
    made = [
        await bus.call(CreateProject(name=name, url=f"https://git.example.org/{name}"))
        for name in names
    ]
    return [project.id for project in made]


class TestCreateInitiative:
    async def test_active_at_once(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await bus.call(CreateInitiative(name="Faster search"))

        assert (initiative.version, initiative.status) == (1, "active")
        assert (initiative.execution_mode, initiative.branch) == ("review_per_phase", None)
        assert await bus.call(GetInitiative(id=initiative.id)) == initiative
        assert await outbox.types() == ["initiative.created"]

    async def test_with_projects(self, bus: Bus, outbox: Outbox) -> None:
        ids = await projects(bus, "one", "two")
        initiative = await arrange.an_initiative(bus, project_ids=ids)
        page = await bus.call(ListProjects(initiative_id=initiative.id))
        assert [project.id for project in page.items] == ids
        data = (await outbox.last("initiative.created")).data
        assert data["project_ids"] == [str(id_) for id_ in ids]

    async def test_external_ref_is_unique(self, bus: Bus) -> None:
        await arrange.an_initiative(bus, external_ref="plan.jsonl")
        with pytest.raises(AlreadyExists) as refused:
            await arrange.an_initiative(bus, "other", external_ref="plan.jsonl")
        assert (refused.value.entity, refused.value.fields) == ("initiative", "external_ref")

    async def test_a_project_is_named_once(self) -> None:
        id_ = uuid7()
        with pytest.raises(ValueError, match="twice"):
            CreateInitiative(name="x", project_ids=[id_, id_])


class TestFindInitiative:
    async def test_by_external_ref(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus, external_ref="plan.jsonl")
        assert await bus.call(FindInitiative(external_ref="plan.jsonl")) == initiative

    async def test_the_oldest_of_a_name(self, bus: Bus) -> None:
        first = await arrange.an_initiative(bus, "same")
        await arrange.an_initiative(bus, "same")
        assert await bus.call(FindInitiative(name="same")) == first

    async def test_unknown(self, bus: Bus) -> None:
        with pytest.raises(InitiativeNotFound) as refused:
            await bus.call(FindInitiative(external_ref="nothing"))
        assert str(refused.value) == "initiative nothing does not exist"

    async def test_exactly_one_is_given(self, bus: Bus) -> None:
        with pytest.raises(InvalidRequest, match="either external_ref or name"):
            await bus.call(FindInitiative.model_construct())


class TestListInitiatives:
    async def names(self, bus: Bus, **query: Any) -> list[str]:
        page = await bus.call(ListInitiatives(**query))
        return [initiative.name for initiative in page.items]

    async def test_pages_in_one_statement(self, bus: Bus, statements: Any) -> None:
        for name in ("b", "c", "a"):
            await arrange.an_initiative(bus, name)
        with statements() as counted:
            first = await bus.call(ListInitiatives(limit=2, order="-name"))
        assert counted.total == 1
        assert [initiative.name for initiative in first.items] == ["c", "b"]
        cursor = first.next_cursor
        assert await self.names(bus, limit=2, order="-name", cursor=cursor) == ["a"]

    async def test_filters(self, bus: Bus) -> None:
        ids = await projects(bus, "one")
        old = await arrange.an_initiative(bus, "Old")
        await arrange.an_initiative(bus, "new", project_ids=ids)
        await bus.call(ArchiveInitiative(id=old.id))
        assert await self.names(bus) == ["Old", "new"]
        assert await self.names(bus, status="archived") == ["Old"]
        assert await self.names(bus, project_id=ids[0]) == ["new"]
        assert await self.names(bus, search="oL") == ["Old"]


class TestUpdateInitiative:
    async def test_what_is_left_out_stays_and_null_clears(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus, branch="feature")
        updated = await bus.call(
            UpdateInitiative(id=initiative.id, branch=None, execution_mode="yolo")
        )
        assert (updated.version, updated.name) == (2, initiative.name)
        assert (updated.branch, updated.execution_mode) == (None, "yolo")
        assert await outbox.types() == ["initiative.created", "initiative.updated"]

    async def test_nothing_changed_tells_nothing(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        same = UpdateInitiative(id=initiative.id, name=initiative.name)
        assert await bus.call(same) == initiative
        assert await outbox.types() == ["initiative.created"]


class TestSetInitiativeProjects:
    async def test_the_difference_is_applied(self, bus: Bus, outbox: Outbox) -> None:
        one, two, three = await projects(bus, "one", "two", "three")
        initiative = await arrange.an_initiative(bus, project_ids=[one, two])

        reply = await bus.call(SetInitiativeProjects(id=initiative.id, project_ids=[three, two]))

        assert (reply.added, reply.removed, reply.initiative.version) == ([three], [one], 2)
        page = await bus.call(ListProjects(initiative_id=initiative.id))
        assert [project.id for project in page.items] == [two, three]
        data = (await outbox.last("initiative.projects_changed")).data
        assert (data["added"], data["removed"]) == ([str(three)], [str(one)])

    async def test_no_difference_tells_nothing(self, bus: Bus, outbox: Outbox) -> None:
        ids = await projects(bus, "one", "two")
        initiative = await arrange.an_initiative(bus, project_ids=ids)
        reply = await bus.call(SetInitiativeProjects(id=initiative.id, project_ids=ids[::-1]))
        assert (reply.added, reply.removed, reply.initiative) == ([], [], initiative)
        assert "initiative.projects_changed" not in await outbox.types()


class TestApproveInitiative:
    async def test_completed(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        await arrange.set_status(db, initiative, "pending_review")
        approved = await bus.call(ApproveInitiative(id=initiative.id, strategy="merge_and_push"))
        assert (approved.version, approved.status) == (2, "completed")
        data = (await outbox.last("initiative.approved")).data
        assert (data["strategy"], data["previous_status"]) == ("merge_and_push", "pending_review")

    async def test_not_pending_review(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        with pytest.raises(InvalidTransition) as refused:
            await bus.call(ApproveInitiative(id=initiative.id, strategy="push_branch"))
        assert (refused.value.from_, refused.value.expected) == ("active", "pending_review")


class TestRequestInitiativeChanges:
    async def test_finalization_with_a_review_task(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress", position=7)
        await bus.call(CompletePhase(id=phase.id))

        active = await bus.call(
            RequestInitiativeChanges(id=initiative.id, summary="The changelog is missing.")
        )

        assert (active.version, active.status) == (3, "active")
        page = await bus.call(ListPhases(initiative_id=initiative.id, status="in_progress"))
        finalization = page.items[0]
        assert (finalization.name, finalization.position) == ("Finalization", 8)
        tasks = (await bus.call(ListTasks(phase_id=finalization.id))).items
        assert [(task.category, task.status, task.description) for task in tasks] == [
            ("review", "pending", "The changelog is missing.")
        ]
        assert tasks[0].initiative_id == initiative.id
        assert (await outbox.types())[-4:] == [
            "initiative.changes_requested",
            "phase.created",
            "phase.changes_requested",
            "task.created",
        ]

    async def test_finalization_is_taken_up_again(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        for summary in ("once", "twice"):
            await arrange.set_status(db, initiative, "pending_review")
            await bus.call(RequestInitiativeChanges(id=initiative.id, summary=summary))

        finalization = (await bus.call(ListPhases(initiative_id=initiative.id))).items
        assert [(phase.status, phase.version) for phase in finalization] == [("in_progress", 3)]
        tasks = (await bus.call(ListTasks(phase_id=finalization[0].id))).items
        assert [task.description for task in tasks] == ["twice"]
        assert (await outbox.types())[-4:] == [
            "initiative.changes_requested",
            "phase.changes_requested",
            "task.ready",
            "task.updated",
        ]

    async def test_not_pending_review(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        with pytest.raises(InvalidTransition):
            await bus.call(RequestInitiativeChanges(id=initiative.id, summary="x"))


class TestArchiveInitiative:
    async def test_the_status_is_remembered(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        await arrange.set_status(db, initiative, "pending_review")
        archived = await bus.call(ArchiveInitiative(id=initiative.id))
        assert (archived.status, archived.status_before) == ("archived", "pending_review")
        assert (await outbox.last("initiative.archived")).data[
            "previous_status"
        ] == "pending_review"

    async def test_twice(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        await bus.call(ArchiveInitiative(id=initiative.id))
        with pytest.raises(InvalidTransition):
            await bus.call(ArchiveInitiative(id=initiative.id))


class TestUnarchiveInitiative:
    @pytest.mark.parametrize("status", ["active", "pending_review", "completed"])
    async def test_back_to_where_it_was(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, status: str
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        await arrange.set_status(db, initiative, status)
        await bus.call(ArchiveInitiative(id=initiative.id))
        back = await bus.call(UnarchiveInitiative(id=initiative.id))
        assert (back.status, back.status_before, back.version) == (status, None, 3)
        assert (await outbox.types())[-1] == "initiative.unarchived"

    async def test_not_archived(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        with pytest.raises(InvalidTransition):
            await bus.call(UnarchiveInitiative(id=initiative.id))


class TestDeleteInitiative:
    async def test_phases_and_tasks_go_along(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        other = await arrange.an_initiative(bus, "other")
        kept = await arrange.a_phase(bus, other.id)
        await arrange.add_task_of(db, kept)
        for name in ("one", "two"):
            phase = await arrange.a_phase(bus, initiative.id, name)
            parent = await arrange.add_task_of(db, phase)
            await arrange.add_task_of(db, phase, phase_id=None, parent_task_id=parent)

        deletion = await bus.call(DeleteInitiative(id=initiative.id))

        assert (deletion.deleted.phases, deletion.deleted.tasks) == (2, 4)
        left = await db.execute(text("SELECT initiative_id FROM planning.tasks"))
        assert list(left.scalars()) == [other.id]
        assert (await outbox.types())[-1] == "initiative.deleted"
        data = (await outbox.last("initiative.deleted")).data
        assert data["deleted"] == {"phases": 2, "tasks": 4}
        assert data["initiative"]["version"] == 2


class TestGetInitiativeOverview:
    async def test_phases_in_order_with_counts(
        self, bus: Bus, db: AsyncConnection, statements: Any
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        second = await arrange.a_phase(bus, initiative.id, "second", position=2)
        first = await arrange.a_phase(bus, initiative.id, "first", position=1)
        for status in ("pending", "pending", "completed"):
            await arrange.add_task_of(db, first, status)
        await arrange.add_task_of(db, second, "blocked", phase_id=None)
        elsewhere = await arrange.a_phase(bus, (await arrange.an_initiative(bus, "other")).id)
        await arrange.add_task_of(db, elsewhere)

        with statements() as counted:
            overview = await bus.call(GetInitiativeOverview(id=initiative.id))

        assert counted.total == 1
        assert overview.initiative == initiative
        assert [each.phase.id for each in overview.phases] == [first.id, second.id]
        assert [each.tasks for each in overview.phases] == [
            TaskCounts(pending=2, completed=1),
            TaskCounts(),
        ]
        assert overview.tasks == TaskCounts(pending=2, completed=1, blocked=1)

    async def test_empty(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        overview = await bus.call(GetInitiativeOverview(id=initiative.id))
        assert (overview.phases, overview.tasks) == ([], TaskCounts())
