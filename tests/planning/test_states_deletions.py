"""Random histories with deletions in steps: callers see what they see where there are no steps."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Refusal
from bus.contract.operation import Operation
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from contracts.agents import agents as a
from contracts.planning import initiatives as i
from contracts.planning import phases as p
from contracts.planning import projects as j
from contracts.planning import tasks as t
from fleetbus.client import Bus, connect
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper import sweeper as _sweeper
from tests.kit.sweeping import Sweep
from tests.planning.test_deletions_in_steps import left, remove_all
from tests.servers import Accounts, Databases, connection_to

STEPS = 40
AT_ONCE, NO_BOUND = 1, 1_000_000
TIMES = {"created_at", "updated_at", "lease_expires_at", "started_at", "last_heartbeat_at"}

EVENTS = "SELECT type, entity_id, data FROM bus.outbox ORDER BY position"


@dataclass
class Side:
    """A service with its database."""

    bus: Bus
    service: Service
    db: AsyncConnection


@asynccontextmanager
async def side(
    settings: Settings, registry: Registry, databases: Databases, accounts: Accounts, bound: int
) -> AsyncIterator[Side]:
    async with AsyncExitStack() as stack:
        url, nats_url = (
            await stack.enter_async_context(databases.clone()),
            await accounts.next_url(),
        )
        own = {"database_url": url, "nats_url": nats_url, "delete_at_once": bound, "relay": False}
        service = Service(settings.model_copy(update=own), registry)
        await service.start()
        stack.push_async_callback(service.stop)
        client = await stack.enter_async_context(connect(nats_url, timeout=20))
        yield Side(client, service, await stack.enter_async_context(connection_to(url)))


def timeless(value: Any) -> Any:
    """A value without what each database says in its own time."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in TIMES}
    if isinstance(value, list):
        return [timeless(each) for each in value]
    return value


async def answer(on: Side, request: Operation[Any]) -> Any:
    try:
        reply = await on.bus.call(request)
    except Refusal as refusal:
        return type(refusal).__name__
    return timeless(reply.model_dump(mode="json"))


class History:
    """The same on both sides, and what callers know of it."""

    def __init__(self, sides: tuple[Side, Side], seed: int) -> None:
        self.sides, self.chance = sides, random.Random(seed)
        self.initiatives: list[UUID] = []
        self.phases: list[UUID] = []
        self.tasks: list[UUID] = []
        self.projects: list[UUID] = []
        self.agents: list[UUID] = []

    async def both(self, request: Operation[Any]) -> Any:
        stepped, whole = [await answer(on, request) for on in self.sides]
        assert stepped == whole, request
        return whole

    def one(self, known: list[UUID]) -> UUID:
        """The last ones mostly: of these there is something left."""
        return self.chance.choice([*known[-6:], *known[-2:] * 3] or [uuid7()])

    def new(self, known: list[UUID]) -> UUID:
        known.append(uuid7())
        return known[-1]

    def maybe(self, known: list[UUID]) -> UUID | None:
        return self.one(known) if self.chance.random() < 0.6 else None

    async def begin(self) -> None:
        """An initiative with a phase and some tasks."""
        await self.both(i.CreateInitiative(id=self.new(self.initiatives), name="a"))
        [initiative] = self.initiatives
        phase = p.CreatePhase(id=self.new(self.phases), initiative_id=initiative, name="a")
        await self.both(phase)
        for phase_id in (*self.phases, None, None, None):
            await self.both(
                t.CreateTask(
                    id=self.new(self.tasks),
                    name="a",
                    initiative_id=initiative,
                    phase_id=phase_id,
                    parent_task_id=self.maybe(self.tasks),
                )
            )

    def actions(self) -> list[Operation[Any]]:
        """One of each kind, on something that may be gone."""
        task, phase, initiative = map(self.one, (self.tasks, self.phases, self.initiatives))
        within: Any = {"initiative_id": initiative, "parent_task_id": self.maybe(self.tasks)}
        agent = str(self.one(self.agents))
        return [
            *[t.CreateTask(id=self.new(self.tasks), name="a", **within)] * 4,
            *[t.CreateTask(id=self.new(self.tasks), name="a", phase_id=phase)] * 2,
            i.CreateInitiative(
                id=self.new(self.initiatives),
                name="a",
                external_ref=self.chance.choice(["x", "y"]),
                project_ids=self.projects[-1:],
            ),
            p.CreatePhase(id=self.new(self.phases), initiative_id=initiative, name="a"),
            j.CreateProject(id=self.new(self.projects), name=f"{uuid7()}", url=f"{uuid7()}"),
            t.AddTaskDependency(id=task, depends_on_task_id=self.one(self.tasks)),
            t.ClaimTasks(limit=2, initiative_id=self.maybe(self.initiatives), agent_id=agent),
            *[t.CompleteTask(id=task)] * 2,
            t.UpdateTask(id=task, name="b"),
            i.UpdateInitiative(id=initiative, name="b"),
            i.SetInitiativeProjects(id=initiative, project_ids=self.projects[-2:]),
            t.DeleteTask(id=task),
            p.DeletePhase(id=phase),
            j.DeleteProject(id=self.one(self.projects)),
            *[i.DeleteInitiative(id=initiative)] * 2,
            a.RegisterAgent(
                id=self.new(self.agents), name=f"{uuid7()}", task_id=task, initiative_id=initiative
            ),
        ]

    def questions(self) -> list[Operation[Any]]:
        initiative, task = self.one(self.initiatives), self.one(self.tasks)
        return [
            *(i.GetInitiative(id=id_) for id_ in self.initiatives),
            *(p.GetPhase(id=id_) for id_ in self.phases),
            *(a.GetAgent(id=id_) for id_ in self.agents),
            t.GetTask(id=task),
            t.GetTaskContext(id=task),
            t.ListTasks(limit=200, count="exact"),
            t.ListTasks(initiative_id=initiative),
            t.ListTaskDependencies(id=task),
            i.ListInitiatives(limit=200, count="exact"),
            i.ListInitiatives(project_id=self.one(self.projects)),
            i.GetInitiativeOverview(id=initiative),
            i.FindInitiative(external_ref="x"),
            j.ListProjects(initiative_id=initiative),
            p.ListPhases(initiative_id=initiative),
            t.GetTaskQueue(),
            t.GetTaskQueue(initiative_id=initiative),
        ]

    async def step(self) -> None:
        await self.both(self.chance.choice(self.actions()))
        if self.chance.random() < 0.4:
            await Sweep(self.sides[0].service)("remove_deleted")
        await self.compare()

    async def compare(self) -> None:
        for question in self.chance.sample(self.questions(), 6):
            await self.both(question)

    async def compare_events(self) -> None:
        stepped, whole = [
            [tuple(map(timeless, row)) for row in await on.db.execute(text(EVENTS))]
            for on in self.sides
        ]
        assert stepped == whole


async def test_nobody_sees_the_steps(
    settings: Settings,
    registry: Registry,
    template_database: Databases,
    nats_accounts: Accounts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_sweeper, "REMOVED_PER_STEP", 1)
    loop = asyncio.get_running_loop()

    async def live(sides: tuple[Side, Side], seed: int) -> None:
        history = History(sides, seed)
        await history.begin()
        for _ in range(STEPS):
            await history.step()
        await history.compare_events()
        await remove_all(Sweep(sides[0].service))
        for question in history.questions():
            await history.both(question)
        stepped, whole = [await left(on.db) for on in sides]
        assert stepped == whole

    given_settings = settings, registry, template_database, nats_accounts
    async with (
        side(*given_settings, AT_ONCE) as stepped,
        side(*given_settings, NO_BOUND) as whole,
    ):

        @examples(
            max_examples=3,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 1_000_000))
        def check(seed: int) -> None:
            asyncio.run_coroutine_threadsafe(live((stepped, whole), seed), loop).result(120)

        await asyncio.to_thread(check)
        seen = await stepped.db.scalar(
            text("SELECT handled FROM bus.sweeps WHERE job = 'remove_deleted'")
        )
        assert seen > AT_ONCE
