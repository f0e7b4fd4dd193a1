"""A plan on the bus beside what it should be, and what may be done to it."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import Command
from bus.contract.refusals import Conflict, NotFound, Unprocessable
from bus.kit.ids import uuid7
from contracts.planning import initiatives as i
from contracts.planning import phases as p
from contracts.planning import tasks as t
from contracts.planning.tasks import DependencyCycle, InitiativeClosed
from fleetbus.client import Bus
from tests.planning._plan_model import Plan, Step, Todo

ACTIONS = (
    *["create"] * 7,
    *["create_below", "need", "move", "work", "follow"] * 4,
    *["create_many", "block", "retry", "unneed", "create_phase", "approve", "start"] * 2,
    *("hold", "unhold", "complete", "accept", "change", "unfollow", "delete", "delete_phase"),
    *("archive", "unarchive", "unarchive", "finish", "again"),
)
MEANT = {
    "approve": "pending",
    "start": "approved",
    "complete": "in_progress",
    "accept": "pending_review",
    "change": "pending_review",
    "unhold": "blocked",
    "block": "pending",
    "retry": "blocked",
}
"""What an action is tried on, as long as there is any."""
ROUNDS = 60
"""How often it is looked for something to do at the end; each does something or is the last."""


class History:
    """A plan, on the bus and as it should be."""

    def __init__(self, bus: Bus, db: AsyncConnection, initiative: UUID, mode: str) -> None:
        self.bus, self.db, self.id = bus, db, initiative
        self.plan = Plan(mode)
        self.told: Counter[str] = Counter()

    async def step(self, chance: random.Random) -> None:
        """One action on something that it is meant for, if there is any."""
        action = chance.choice(ACTIONS)
        phases = self._those(self.plan.phases, action)
        await getattr(self, action)(
            task=chance.choice(self._those(self.plan.tasks, action)),
            another=chance.choice([*self.plan.tasks, uuid7()]),
            phase=chance.choice(phases),
            following=chance.choice([*self.plan.phases, uuid7()]),
            somewhere=chance.choice([None, *self.plan.phases]),
        )
        await self.compare()

    @staticmethod
    def _those(found: Mapping[UUID, Todo | Step], action: str) -> list[UUID]:
        meant = [id_ for id_, one in found.items() if one.status == MEANT.get(action, one.status)]
        return meant or [*found, uuid7()]

    async def do(self, command: Command[Any], after: Plan, *, adds: bool = False) -> Any:
        """Do it on the bus, and take over what should come of it if it is not refused."""
        before = self.plan.dispatchable()
        closed = adds and self.plan.status == "archived"
        try:
            reply = await self.bus.call(command)
        except DependencyCycle:
            assert after.goes_round(), command
            return None
        except InitiativeClosed:
            assert closed, command
            return None
        except (Conflict, NotFound, Unprocessable):
            return None
        assert not closed, command
        assert not after.goes_round(), command
        new = after.phases.keys() - self.plan.phases.keys()
        after.settle()
        self.plan = after
        self.told.update(str(id_) for id_ in after.dispatchable() - before - new)
        return reply

    async def add(self, phase: UUID | None, parent: UUID | None) -> None:
        id_, after = uuid7(), self.plan.copy()
        after.tasks[id_] = Todo(phase, parent)
        after.take_up(id_)
        command = t.CreateTask(
            id=id_, name="t", initiative_id=self.id, phase_id=phase, parent_task_id=parent
        )
        await self.do(command, after, adds=True)

    async def create(self, somewhere: UUID | None, **_: Any) -> None:
        await self.add(somewhere, None)

    async def create_below(self, task: UUID, somewhere: UUID | None, **_: Any) -> None:
        if task in self.plan.tasks:
            await self.add(somewhere, task)

    async def create_many(
        self, task: UUID, somewhere: UUID | None, following: UUID, **_: Any
    ) -> None:
        if not self.plan.phases or task not in self.plan.tasks:
            return
        one, other, after = uuid7(), uuid7(), self.plan.copy()
        after.tasks[one] = Todo(somewhere, task, needs={other, task})
        after.tasks[other] = Todo(following, one, "completed")
        after.take_up(one, other)
        base: dict[str, Any] = {"name": "t", "initiative_id": self.id}
        items = [
            t.NewTaskItem(
                id=one,
                ref="a",
                phase_id=somewhere,
                parent_task_id=task,
                depends_on=["b", str(task)],
                **base,
            ),
            t.NewTaskItem(
                id=other, ref="b", phase_id=following, parent="a", status="completed", **base
            ),
        ]
        await self.do(t.CreateManyTasks(items=items), after, adds=True)

    async def move(self, task: UUID, somewhere: UUID | None, **_: Any) -> None:
        after = self.plan.copy()
        adds = False
        if task in after.tasks and after.tasks[task].phase != somewhere:
            after.tasks[task].phase = somewhere
            carried = [id_ for id_ in after.below(task) if self._carried(after, id_, task)]
            after.take_up(*carried)
            adds = any(map(after.is_open, carried))
        await self.do(t.UpdateTask(id=task, phase_id=somewhere), after, adds=adds)

    @staticmethod
    def _carried(plan: Plan, id_: UUID, top: UUID) -> bool:
        while id_ != top:
            task = plan.tasks[id_]
            if task.phase is not None or task.parent is None:
                return False
            id_ = task.parent
        return True

    async def delete(self, task: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if task in after.tasks:
            after.delete_task(task)
        await self.do(t.DeleteTask(id=task), after)

    async def need(self, task: UUID, another: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if task in after.tasks:
            after.tasks[task].needs.add(another)
        await self.do(t.AddTaskDependency(id=task, depends_on_task_id=another), after)

    async def unneed(self, task: UUID, another: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if task in after.tasks:
            after.tasks[task].needs.discard(another)
        await self.do(t.RemoveTaskDependency(id=task, depends_on_task_id=another), after)

    async def work(self, **_: Any) -> None:
        claimed = await self.bus.call(t.ClaimTasks(agent_id="w", initiative_id=self.id))
        for one in claimed.tasks:
            self.plan.tasks[one.task.id].status = "in_progress"
            await self._becomes(t.CompleteTask(id=one.task.id), one.task.id, "completed")

    async def _becomes(self, command: Command[Any], task: UUID, status: str) -> None:
        after = self.plan.copy()
        if task in after.tasks:
            after.tasks[task].status = status
        if retried := isinstance(command, t.RetryTask) and task in after.tasks:
            after.take_up(task)
        await self.do(command, after, adds=retried)

    async def block(self, task: UUID, **_: Any) -> None:
        await self._becomes(t.BlockTask(id=task, reason="why"), task, "blocked")

    async def retry(self, task: UUID, **_: Any) -> None:
        await self._becomes(t.RetryTask(id=task), task, "pending")

    async def create_phase(self, task: UUID, **_: Any) -> None:
        status: Any = ("pending", "approved", "in_progress")[task.int % 3]
        id_, after = uuid7(), self.plan.copy()
        after.phases[id_] = Step(status)
        made = p.CreatePhase(id=id_, initiative_id=self.id, name="p", status=status)
        await self.do(made, after, adds=True)

    async def _phase(
        self, command: Command[Any], phase: UUID, status: str | None, before: str | None = None
    ) -> None:
        after = self.plan.copy()
        if phase in after.phases:
            after.phases[phase].status = status or after.phases[phase].before or "?"
            after.phases[phase].before = before
        await self.do(command, after)

    async def approve(self, phase: UUID, **_: Any) -> None:
        await self._phase(p.ApprovePhase(id=phase), phase, "approved")

    async def start(self, phase: UUID, **_: Any) -> None:
        await self._phase(p.StartPhase(id=phase), phase, "in_progress")

    async def hold(self, phase: UUID, **_: Any) -> None:
        now = self.plan.phases[phase].status if phase in self.plan.phases else None
        await self._phase(p.BlockPhase(id=phase, reason="why"), phase, "blocked", now)

    async def unhold(self, phase: UUID, **_: Any) -> None:
        await self._phase(p.UnblockPhase(id=phase), phase, None)

    async def complete(self, phase: UUID, **_: Any) -> None:
        await self._phase(p.CompletePhase(id=phase), phase, "completed")

    async def accept(self, phase: UUID, **_: Any) -> None:
        await self._phase(p.ApprovePhaseReview(id=phase), phase, "completed")

    async def change(self, phase: UUID, **_: Any) -> None:
        if self.plan.phases.get(phase, Step("?")).status != "pending_review":
            return
        after = self.plan.copy()
        after.phases[phase].status = "in_progress"
        if await self.do(p.RequestPhaseChanges(id=phase, summary="s"), after, adds=True):
            await self.learn()

    async def delete_phase(self, phase: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if phase in after.phases:
            after.delete_phase(phase)
        await self.do(p.DeletePhase(id=phase), after)

    async def follow(self, phase: UUID, following: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if phase in after.phases:
            after.phases[phase].needs.add(following)
        await self.do(p.AddPhaseDependency(id=phase, depends_on_phase_id=following), after)

    async def unfollow(self, phase: UUID, following: UUID, **_: Any) -> None:
        after = self.plan.copy()
        if phase in after.phases:
            after.phases[phase].needs.discard(following)
        await self.do(p.RemovePhaseDependency(id=phase, depends_on_phase_id=following), after)

    async def archive(self, **_: Any) -> None:
        after = self.plan.copy()
        after.status, after.before = "archived", after.status
        await self.do(i.ArchiveInitiative(id=self.id), after)

    async def unarchive(self, **_: Any) -> None:
        after = self.plan.copy()
        after.status, after.before = after.before or "?", None
        await self.do(i.UnarchiveInitiative(id=self.id), after)

    async def finish(self, **_: Any) -> None:
        after = self.plan.copy()
        after.status = "completed"
        await self.do(i.ApproveInitiative(id=self.id, strategy="push_branch"), after)

    async def again(self, **_: Any) -> None:
        if self.plan.status == "pending_review":
            await self.bus.call(i.RequestInitiativeChanges(id=self.id, summary="s"))
            self.plan.status = "active"
            await self.learn()

    async def learn(self) -> None:
        """Take over what a review has added: tasks, and a phase for them."""
        for phase in (await self.bus.call(p.ListPhases(initiative_id=self.id))).items:
            if phase.name == "Finalization":
                self.plan.phases.setdefault(phase.id, Step("?")).status = "in_progress"
                self.plan.phases[phase.id].before = None
        query = t.ListTasks(initiative_id=self.id, category="review", limit=500)
        for task in (await self.bus.call(query)).items:
            self.plan.tasks.setdefault(task.id, Todo(task.phase_id, None))
        self.plan.settle()

    async def compare(self) -> None:
        statement = (
            "SELECT id, status FROM planning.tasks WHERE initiative_id = :id UNION ALL "
            "SELECT id, status FROM planning.phases WHERE initiative_id = :id UNION ALL "
            "SELECT id, status FROM planning.initiatives WHERE id = :id"
        )
        found = {
            row.id: row.status for row in await self.db.execute(text(statement), {"id": self.id})
        }
        assert found == self.plan.statuses() | {self.id: self.plan.status}
        told = await self.db.execute(
            text(
                "SELECT entity_id, count(*) FROM bus.outbox WHERE type = 'phase.dispatchable' "
                "AND data->'phase'->>'initiative_id' = :id GROUP BY entity_id"
            ),
            {"id": str(self.id)},
        )
        assert {row.entity_id: row.count for row in told} == self.told

    async def drop(self) -> None:
        """Delete something that is left to do."""
        if left := [task for task in self.plan.tasks if self.plan.is_open(task)]:
            await self.delete(task=left[0])

    async def drive(self, chance: random.Random) -> None:
        """Do whatever can be done: in the end nothing is left."""
        await self.unarchive()
        for _ in range(ROUNDS):
            before = self.plan.copy()
            for phase, held in list(self.plan.phases.items()):
                if held.status == "in_progress" and not self.plan.held_by(phase):
                    await self.complete(phase=phase)
                for action in (self.unhold, self.approve, self.start, self.accept):
                    await action(phase=phase)
            for task, todo in list(self.plan.tasks.items()):
                place = self.plan.phase_of(task)
                left = place is not None and self.plan.phases[place].status == "completed"
                if todo.status == "pending" and left:
                    await self.block(task=task)
                await self.retry(task=task)
            await chance.choice([self.work, self.work, self.drop])()
            await self.compare()
            if self.plan == before and not any(map(self.plan.is_open, self.plan.tasks)):
                break
        assert {*self.plan.statuses().values()} <= {"completed"}
        assert self.plan.status != "active" or not self.plan.statuses()
