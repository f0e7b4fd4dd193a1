"""Plans that change by random commands, and which of their tasks are ready by the definition."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import Command
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from contracts.planning.initiatives import (
    ApproveInitiative,
    ArchiveInitiative,
    CreateInitiative,
    RequestInitiativeChanges,
    UnarchiveInitiative,
)
from contracts.planning.phases import (
    ApprovePhase,
    ApprovePhaseReview,
    BlockPhase,
    CompletePhase,
    CreatePhase,
    DeletePhase,
    RequestPhaseChanges,
    StartPhase,
    UnblockPhase,
)
from contracts.planning.tasks import (
    AcceptLateResult,
    AddTaskDependency,
    BlockTask,
    ClaimTasks,
    CompleteTask,
    CreateManyTasks,
    CreateTask,
    DeleteTask,
    NewTaskItem,
    ReleaseTask,
    RemoveTaskDependency,
    RetryTask,
    UpdateTask,
)
from fleetbus.client import Bus

CATEGORIES: Any = ["execute", "review", "plan"]

_TASKS = """
    SELECT id, parent_task_id, phase_id, initiative_id, status, category, attempt, held,
           in_phase_id, underway
    FROM planning.tasks WHERE initiative_id = ANY(:initiatives)
    ORDER BY priority_rank, position, created_at, id
"""
_EDGES = """
    SELECT d.task_id, d.depends_on_task_id FROM planning.task_dependencies d
    JOIN planning.tasks t ON t.id = d.task_id WHERE t.initiative_id = ANY(:initiatives)
"""
_PHASES = "SELECT id, status FROM planning.phases WHERE initiative_id = ANY(:initiatives)"
_INITIATIVES = "SELECT id, status FROM planning.initiatives WHERE id = ANY(:initiatives)"


@dataclass
class Seen:
    """What is in the tables, and what follows from it by the definition."""

    tasks: dict[UUID, Any]
    edges: set[tuple[UUID, UUID]]
    phases: dict[UUID, str]
    initiatives: dict[UUID, str]

    def ready(self) -> list[UUID]:
        """The tasks that are ready, in the order in which they are claimed."""
        return [id_ for id_ in self.tasks if self.is_ready(id_)]

    def is_ready(self, id_: UUID) -> bool:
        task = self.tasks[id_]
        if task.status != "pending" or self.waits(id_):
            return False
        above = task.parent_task_id
        while above is not None:
            if self.waits(above) or self.tasks[above].status == "blocked":
                return False
            above = self.tasks[above].parent_task_id
        phase = self.phase_of(id_)
        if phase is not None and self.phases[phase] != "in_progress":
            return False
        return task.initiative_id is None or self.initiatives[task.initiative_id] == "active"

    def waits(self, id_: UUID) -> bool:
        return any(
            one == id_ and self.tasks[other].status != "completed" for one, other in self.edges
        )

    def phase_of(self, id_: UUID) -> UUID | None:
        here: UUID | None = id_
        while here is not None:
            if self.tasks[here].phase_id is not None:
                found: UUID = self.tasks[here].phase_id
                return found
            here = self.tasks[here].parent_task_id
        return None


@dataclass
class Plan:
    """Two initiatives with phases and tasks, changed over the bus."""

    bus: Bus
    db: AsyncConnection
    initiatives: list[UUID] = field(default_factory=list)
    phases: list[UUID] = field(default_factory=list)
    tasks: list[UUID] = field(default_factory=list)
    attempts: dict[UUID, int] = field(default_factory=dict)

    async def begin(self) -> None:
        for _ in range(2):
            made = await self.bus.call(CreateInitiative(name="an initiative"))
            self.initiatives.append(made.id)
        for n, status in ((0, "in_progress"), (0, "approved"), (1, "in_progress")):
            fields: Any = {"initiative_id": self.initiatives[n], "name": "p", "status": status}
            self.phases.append((await self.bus.call(CreatePhase(**fields))).id)

    async def see(self) -> Seen:
        values = {"initiatives": self.initiatives}
        tasks, edges, phases, initiatives = [
            (await self.db.execute(text(query), values)).all()
            for query in (_TASKS, _EDGES, _PHASES, _INITIATIVES)
        ]
        seen = Seen(
            {row.id: row for row in tasks},
            {(row.task_id, row.depends_on_task_id) for row in edges},
            {row.id: row.status for row in phases},
            {row.id: row.status for row in initiatives},
        )
        self.phases = sorted(seen.phases)
        self.tasks = sorted(seen.tasks)
        self.attempts = {row.id: row.attempt for row in tasks}
        return seen

    async def told_ready(self, after: int) -> tuple[Counter[UUID], int]:
        """Which tasks were told to be ready behind a position, and how far that was looked at."""
        query = "SELECT position, type, entity_id FROM bus.outbox WHERE position > :after"
        rows = (await self.db.execute(text(query), {"after": after})).all()
        told = Counter(UUID(row.entity_id) for row in rows if row.type == "task.ready")
        return told, max([after, *(row.position for row in rows)])

    async def do(self, steps: Sequence[Step]) -> list[Any]:
        """Send the commands of some steps at once; what is refused changes nothing."""
        commands = [command for step in steps if (command := COMMANDS[step.what](self, step))]
        return await asyncio.gather(*(self._call(command) for command in commands))

    async def _call(self, command: Command[Any]) -> Any:
        try:
            return await self.bus.call(command)
        except Refusal as refusal:
            if refusal.status >= 500:
                raise
            return None

    def task(self, n: int) -> UUID | None:
        return self.tasks[n % len(self.tasks)] if self.tasks else None

    def phase(self, n: int) -> UUID:
        return self.phases[n % len(self.phases)] if self.phases else uuid7()

    def initiative(self, n: int) -> UUID:
        return self.initiatives[n % len(self.initiatives)]


@dataclass(frozen=True)
class Step:
    """A command, and which of what there is it is about."""

    what: str
    one: int
    other: int


Making = Callable[[Plan, Step], Command[Any] | None]


def _create(plan: Plan, step: Step) -> Command[Any]:
    given: Any = {"name": "a task", "category": CATEGORIES[step.other % 3]}
    if step.other % 4 == 3:
        given["priority"] = "high"
    if step.other % 5 == 4:
        given |= {"status": "blocked", "blocked_reason": "why"}
    match step.one % 4:
        case 0:
            given["initiative_id"] = plan.initiative(step.other)
        case 1:
            given["phase_id"] = plan.phase(step.other)
        case 2:
            given |= {"phase_id": plan.phase(step.one), "parent_task_id": plan.task(step.other)}
        case _:
            given["parent_task_id"] = plan.task(step.other)
    if given.get("parent_task_id") is None and len(given) == 2:
        given["initiative_id"] = plan.initiative(step.other)
    return CreateTask(**given)


def _create_many(plan: Plan, step: Step) -> Command[Any]:
    where: Any = {"phase_id": plan.phase(step.one)}
    existing = plan.task(step.other)
    waits = [str(existing)] if existing and step.one % 2 else []
    items: Any = [
        {"ref": "child", "parent": "top", "name": "child"},
        {"ref": "top", "name": "top", "depends_on": waits, **where},
        {"ref": "last", "parent": "child", "name": "last", "category": "review"},
        {"ref": "next", "name": "next", "depends_on": ["child"], **where},
    ]
    return CreateManyTasks(items=[NewTaskItem(**item) for item in items])


def _about_tasks(make: Callable[[Plan, UUID, UUID], Command[Any]]) -> Making:
    def made(plan: Plan, step: Step) -> Command[Any] | None:
        one, other = plan.task(step.one), plan.task(step.other)
        return make(plan, one, other) if one and other else None

    return made


def _move(plan: Plan, step: Step) -> Command[Any] | None:
    id_ = plan.task(step.one)
    to = None if step.other % 4 == 3 else plan.phase(step.other)
    return UpdateTask(id=id_, phase_id=to) if id_ else None


def _claim(plan: Plan, step: Step) -> Command[Any]:
    filters: Any = [
        {"initiative_id": plan.initiative(step.other)},
        {"phase_id": plan.phase(step.other)},
        {"initiative_id": plan.initiative(0), "phase_id": plan.phase(step.other)},
        {"initiative_id": plan.initiative(0), "categories": ["plan", "review"]},
    ][step.one % 4]
    filters.setdefault("categories", CATEGORIES)
    return ClaimTasks(agent_id="agent", limit=1 + step.other % 2, **filters)


COMMANDS: dict[str, Making] = {
    "create": _create,
    "create_many": _create_many,
    "move": _move,
    "claim": _claim,
    "delete": _about_tasks(lambda _, one, __: DeleteTask(id=one)),
    "depend": _about_tasks(
        lambda _, one, other: AddTaskDependency(id=one, depends_on_task_id=other)
    ),
    "remove": _about_tasks(
        lambda _, one, other: RemoveTaskDependency(id=one, depends_on_task_id=other)
    ),
    "block": _about_tasks(lambda _, one, __: BlockTask(id=one, reason="why")),
    "retry": _about_tasks(lambda _, one, __: RetryTask(id=one)),
    "release": _about_tasks(
        lambda plan, one, _: ReleaseTask(id=one, attempt=plan.attempts[one], reason="why")
    ),
    "complete": _about_tasks(lambda _, one, __: CompleteTask(id=one)),
    "too_late": _about_tasks(lambda _, one, __: CompleteTask(id=one, attempt=1)),
    "accept": _about_tasks(lambda _, one, __: AcceptLateResult(id=one, attempt=1)),
    "approve": lambda plan, step: ApprovePhase(id=plan.phase(step.one)),
    "start": lambda plan, step: StartPhase(id=plan.phase(step.one)),
    "block_phase": lambda plan, step: BlockPhase(id=plan.phase(step.one), reason="why"),
    "unblock_phase": lambda plan, step: UnblockPhase(id=plan.phase(step.one)),
    "complete_phase": lambda plan, step: CompletePhase(id=plan.phase(step.one)),
    "approve_review": lambda plan, step: ApprovePhaseReview(id=plan.phase(step.one)),
    "change_phase": lambda plan, step: RequestPhaseChanges(id=plan.phase(step.one), summary="x"),
    "delete_phase": lambda plan, step: DeletePhase(id=plan.phase(step.one)),
    "archive": lambda plan, step: ArchiveInitiative(id=plan.initiative(step.one)),
    "unarchive": lambda plan, step: UnarchiveInitiative(id=plan.initiative(step.one)),
    "approve_all": lambda plan, step: ApproveInitiative(
        id=plan.initiative(step.one), strategy="push_branch"
    ),
    "change_all": lambda plan, step: RequestInitiativeChanges(
        id=plan.initiative(step.one), summary="x"
    ),
}
