"""What is deleted with many parts is gone at once, and its rows are removed in steps."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import AlreadyExists, InvalidReference, Refusal
from bus.storage.lookups import Part, look_up
from bus.storage.own import deletions as _deletions
from contracts.agents.agents import Agent, GetAgent
from contracts.planning.initiatives import (
    CreateInitiative,
    DeleteInitiative,
    FindInitiative,
    GetInitiative,
    GetInitiativeOverview,
    Initiative,
    InitiativeNotFound,
    ListInitiatives,
    SetInitiativeProjects,
    UpdateInitiative,
)
from contracts.planning.phases import CreatePhase, GetPhase, ListPhases, PhaseNotFound
from contracts.planning.projects import CreateProject, DeleteProject, ListProjects
from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    CreateTask,
    GetTask,
    GetTaskContext,
    GetTaskQueue,
    ListTasks,
    Task,
    TaskNotFound,
)
from fleetbus.cli.doctor.rows_left import rows_left
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.figures import FiguresReader
from fleetbus.server.monitoring.collector import collect, snapshot
from fleetbus.server.service import Service
from fleetbus.server.sweeper import sweeper as _sweeper
from tests.agents.arrange import an_agent
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

BOUND = 3

LEFT = """
    SELECT (SELECT count(*) FROM planning.initiatives) AS initiatives,
           (SELECT count(*) FROM planning.phases) AS phases,
           (SELECT count(*) FROM planning.tasks) AS tasks,
           (SELECT count(*) FROM planning.task_dependencies) AS task_dependencies,
           (SELECT count(*) FROM planning.phase_dependencies) AS phase_dependencies,
           (SELECT count(*) FROM bus.deletions) AS deletions
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"delete_at_once": BOUND})


async def left(db: AsyncConnection) -> dict[str, int]:
    return {name: n for name, n in (await db.execute(text(LEFT))).one()._mapping.items() if n}


async def large(bus: Bus, **fields: Any) -> tuple[Initiative, list[Task]]:
    """An initiative with more than may be deleted at once: a chain of tasks, and one beside it."""
    initiative = await bus.call(CreateInitiative(name="large", **fields))
    tasks: list[Task] = []
    for n in range(BOUND + 1):
        parent = tasks[-1].id if tasks else None
        created = CreateTask(name=f"{n}", initiative_id=initiative.id, parent_task_id=parent)
        tasks.append(await bus.call(created))
    return initiative, tasks


async def remove_all(sweep: Sweep) -> None:
    """Every step that there is to do."""
    while await sweep("let_go_of_removed") or await sweep("remove_deleted"):
        pass


class TestGoneAtOnce:
    async def test_for_who_asks_for_it_or_its_parts(self, bus: Bus, db: AsyncConnection) -> None:
        initiative, tasks = await large(bus, external_ref="plan")
        phase = await bus.call(CreatePhase(initiative_id=initiative.id, name="a phase"))

        deletion = await bus.call(DeleteInitiative(id=initiative.id))

        assert deletion.deleted.model_dump() == {"phases": 1, "tasks": BOUND + 1}
        assert (await left(db))["tasks"] == BOUND + 1
        gone: list[tuple[type[Refusal], Any]] = [
            (InitiativeNotFound, GetInitiative(id=initiative.id)),
            (InitiativeNotFound, GetInitiativeOverview(id=initiative.id)),
            (InitiativeNotFound, FindInitiative(external_ref="plan")),
            (InitiativeNotFound, FindInitiative(name="large")),
            (InitiativeNotFound, UpdateInitiative(id=initiative.id, name="other")),
            (InitiativeNotFound, SetInitiativeProjects(id=initiative.id, project_ids=[])),
            (InitiativeNotFound, DeleteInitiative(id=initiative.id)),
            (PhaseNotFound, GetPhase(id=phase.id)),
            (TaskNotFound, GetTask(id=tasks[0].id)),
            (TaskNotFound, GetTaskContext(id=tasks[0].id)),
            (TaskNotFound, CompleteTask(id=tasks[0].id)),
            (InvalidReference, CreateTask(name="t", initiative_id=initiative.id)),
            (InvalidReference, CreateTask(name="t", phase_id=phase.id)),
            (InvalidReference, CreateTask(name="t", parent_task_id=tasks[0].id)),
            (InvalidReference, CreatePhase(name="p", initiative_id=initiative.id)),
            (InvalidReference, ClaimTasks(agent_id="a", initiative_id=initiative.id)),
            (InvalidReference, ClaimTasks(agent_id="a", phase_id=phase.id)),
            (InvalidReference, GetTaskQueue(initiative_id=initiative.id)),
        ]
        for refusal, request in gone:
            with pytest.raises(refusal):
                await bus.call(request)

    async def test_for_who_looks_up_more_than_one(self, bus: Bus, db: AsyncConnection) -> None:
        initiative, tasks = await large(bus)
        agent = await an_agent(bus)
        await bus.call(DeleteInitiative(id=initiative.id))
        it_came_later = text("UPDATE agents.agents SET task_id = :task WHERE id = :id")
        await db.execute(it_came_later, {"task": tasks[0].id, "id": agent.id})

        of_agent, of_task = (Part(Agent), Part(Task, 0, "task_id")), (Part(Task), Part(Task))
        found = await look_up(db, of_agent, [agent.id], clock=False)
        [(present, named)] = found.rows.values()
        assert (present.id, present.task_id, named) == (agent.id, tasks[0].id, None)
        assert (await look_up(db, of_task, [tasks[0].id], clock=True)).rows == {}

    async def test_for_lists_counts_and_claims(self, bus: Bus) -> None:
        initiative, tasks = await large(bus)
        project = await bus.call(CreateProject(name="p", url="https://example.com/p"))
        await bus.call(SetInitiativeProjects(id=initiative.id, project_ids=[project.id]))
        other = await bus.call(CreateTask(name="other"))

        await bus.call(DeleteInitiative(id=initiative.id))

        page = await bus.call(ListTasks(count="exact"))
        assert ([task.id for task in page.items], page.total) == ([other.id], 1)
        assert (await bus.call(ListTasks(initiative_id=initiative.id))).items == []
        assert (await bus.call(ListTasks(parent_task_id=tasks[0].id))).items == []
        assert (await bus.call(ListInitiatives(count="exact"))).total == 0
        assert (await bus.call(ListInitiatives(project_id=project.id))).items == []
        assert (await bus.call(ListProjects(initiative_id=initiative.id))).items == []
        assert (await bus.call(ListPhases(initiative_id=initiative.id))).items == []
        queue = await bus.call(GetTaskQueue())
        assert (queue.ready, queue.waiting) == (1, 0)
        claimed = await bus.call(ClaimTasks(agent_id="a", limit=BOUND))
        assert [one.task.id for one in claimed.tasks] == [other.id]
        assert (await bus.call(ClaimTasks(agent_id="a"))).tasks == []
        deletion = await bus.call(DeleteProject(id=project.id))
        assert deletion.deleted.initiative_links == 0

    async def test_its_reference_is_free_and_its_ids_are_not(
        self, bus: Bus, service: Service
    ) -> None:
        initiative, tasks = await large(bus, external_ref="plan")
        await bus.call(DeleteInitiative(id=initiative.id))

        with pytest.raises(AlreadyExists):
            await bus.call(CreateInitiative(id=initiative.id, name="again"))
        with pytest.raises(AlreadyExists):
            await bus.call(CreateTask(id=tasks[0].id, name="again"))
        await bus.call(CreateInitiative(name="new", external_ref="plan"))

        await remove_all(Sweep(service))
        again = await bus.call(CreateInitiative(id=initiative.id, name="again"))
        assert (again.id, again.version) == (initiative.id, 1)
        await bus.call(CreateTask(id=tasks[0].id, name="again", initiative_id=again.id))

    async def test_for_the_sweeper(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        initiative, _ = await large(bus)
        await bus.call(ClaimTasks(agent_id="a", initiative_id=initiative.id))
        await bus.call(DeleteInitiative(id=initiative.id))
        long_ago = "UPDATE planning.tasks SET lease_expires_at = now() - interval '1 hour'"
        await db.execute(text(long_ago))

        assert await sweep("expire_task_leases") == 0

        assert (await outbox.last()).type == "initiative.deleted"


class TestTold:
    async def test_once_and_as_if_it_were_small(self, bus: Bus, outbox: Outbox) -> None:
        initiative, tasks = await large(bus)
        await bus.call(DeleteInitiative(id=initiative.id))
        data = (await outbox.last("initiative.deleted")).data
        assert data["initiative"]["version"] == initiative.version + 1
        assert data["deleted"] == {"phases": 0, "tasks": len(tasks)}
        assert data["task_ids"] == [str(task.id) for task in tasks]
        assert (await outbox.types()).count("initiative.deleted") == 1

    async def test_agents_let_go(self, bus: Bus, service: Service, outbox: Outbox) -> None:
        initiative, tasks = await large(bus)
        agent = await an_agent(bus, task_id=tasks[-1].id, initiative_id=initiative.id)

        await bus.call(DeleteInitiative(id=initiative.id))

        after = await bus.call(GetAgent(id=agent.id))
        assert (after.task_id, after.initiative_id, after.version) == (
            None,
            None,
            agent.version + 1,
        )
        assert [row.type for row in (await outbox.all())[-2:]] == [
            "initiative.deleted",
            "agent.updated",
        ]
        number = await outbox.count()
        await remove_all(Sweep(service))
        assert await outbox.count() == number


class TestRemoved:
    async def test_in_steps_until_nothing_is_left(
        self, bus: Bus, db: AsyncConnection, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
    ) -> None:
        monkeypatch.setattr(_sweeper, "REMOVED_PER_STEP", 2)
        initiative, _ = await large(bus)
        await bus.call(DeleteInitiative(id=initiative.id))
        seen = []
        while await sweep("remove_deleted"):
            seen.append((await left(db)).get("tasks", 0))
        assert seen == sorted(seen, reverse=True)
        assert len(seen) > BOUND / 2
        assert await left(db) == {}
        assert await _deletions.under_way(db) == (0, 0, None)


class TestWatched:
    async def test_metrics_and_doctor(
        self, bus: Bus, service: Service, db: AsyncConnection
    ) -> None:
        assert await rows_left(db) == ""
        initiative, tasks = await large(bus)
        await bus.call(DeleteInitiative(id=initiative.id))

        left = f"about {len(tasks)} rows are left"
        assert (await rows_left(db)).startswith("; 1 deletion is under way, the first for")
        assert left in await rows_left(db)
        reader = FiguresReader(service.database)
        async with asyncio.timeout(20):
            while (figures := await reader.read()) is None:
                pass
        await reader.close()
        told = {
            sample.name: sample.value
            for metric in collect(snapshot(service, figures, ready=True))
            for sample in metric.samples
        }
        assert told["fleetbus_deletions_under_way"] == 1
        assert told["fleetbus_deletions_left_rows"] == len(tasks)
        assert told["fleetbus_deletions_oldest_seconds"] > 0

        await remove_all(Sweep(service))
        assert await rows_left(db) == ""
