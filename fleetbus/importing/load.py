"""Bring a plan into the system, over the bus and as often as one likes.

What was imported before is found by its `external_ref`, so a second import adds what is new,
changes what was changed and writes nothing else; one that broke off is continued by the next.
Commands get fresh idempotency keys: a key made of the content would for a day answer with what
was done before, even where the tasks were deleted since.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any
from uuid import UUID

from nats.errors import MaxPayloadError

from bus.contract.operation import Operation
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from contracts.planning.initiatives import CreateInitiative, ExecutionMode
from contracts.planning.phases import AddPhaseDependency, ApprovePhase, UpdatePhase
from contracts.planning.tasks import AddTaskDependency, CreateManyTasks, DependencyCycle, UpdateTask
from fleetbus.client import Client
from fleetbus.client.storable import cut
from fleetbus.client.words import is_too_much
from fleetbus.importing.changes import Changes, compare, gone
from fleetbus.importing.packing import Ids, PackedRequest, in_order, new_phase, pack, without
from fleetbus.importing.plan import Dependency, Plan, PlannedPhase, SourceEdge
from fleetbus.importing.present import Present, for_each, read_present
from fleetbus.importing.records import external_ref
from fleetbus.importing.report import Difference, LoadReport, Tally

SHORT_TEXT = 4_000
"""Characters of a text that are stored where all of it is more than the service takes."""

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what is being done."""


async def load_plan(
    bus: Client,
    plan: Plan,
    *,
    source: str = "plan",
    execution_mode: ExecutionMode = "review_per_phase",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> LoadReport:
    """Bring a plan into the initiative `<source>:<name of the plan>`, making it if need be.

    Its phases are in progress at once, save those that wait for another phase. `execution_mode` is
    that of a new initiative. A dry run only reads, and reports what would be done.
    """
    ref = external_ref(f"{source}:{plan.name}")
    present = await read_present(bus, ref)
    plan = plan.keeping(present.kept)
    changes = compare(plan, present)
    load = _Load(bus, plan, present, changes, progress or _silent)
    initiative_id = present.initiative.id if present.initiative else None
    if not dry_run:
        initiative_id = await load.write(ref, execution_mode)
    return _report(load, ref, initiative_id, dry_run=dry_run)


class _Load:
    """One import: what it writes, and what was refused meanwhile."""

    def __init__(
        self, bus: Client, plan: Plan, present: Present, changes: Changes, progress: Progress
    ) -> None:
        self.plan = plan
        self.present = present
        self.changes = changes
        self.refused: dict[str, list[Difference]] = {}
        self.left_out: list[SourceEdge] = []
        """What would close a cycle with dependencies that are here and no longer in the plan."""
        self._closing: list[Dependency] = []
        """Phase dependencies that close a cycle as long as tasks are where they were."""
        self._bus = bus
        self._progress = progress
        self._done = 0
        self._positions = {task.ref: place for place, task in enumerate(plan.tasks)}
        self._positions |= {phase.ref: place for place, phase in enumerate(plan.phases)}
        self._phases = _ids(present.phases, changes.new_phases)
        self._tasks = _ids(present.tasks, changes.new_tasks)

    async def write(self, ref: str, execution_mode: ExecutionMode) -> UUID:
        """Write what is to be written: each thing after all that it names."""
        existing = self.present.initiative
        initiative = existing or await self._bus.call(
            CreateInitiative(name=self.plan.name, external_ref=ref, execution_mode=execution_mode)
        )
        ids = Ids(initiative.id, self._phases, self._tasks, self._positions)
        await self._write_phases(ids)
        late = await self._create_tasks(ids)
        await self._update_tasks()
        # By now tasks are where the plan has them: what closed a cycle before need not any longer.
        await for_each(self._closing, self._add_phase_dependency)
        await self._approve()
        await for_each(late, self._add_dependency)
        return initiative.id

    async def _write_phases(self, ids: Ids) -> None:
        async def create(phase: PlannedPhase) -> None:
            waits = phase.ref in self.changes.waiting_phases
            await self._bus.call(new_phase(phase, ids, waits=waits))
            self._advance("phases")

        async def update(ref: str) -> None:
            fields = self.changes.phase_updates[ref]
            await self._attempt("phases", ref, UpdatePhase(id=self._phases[ref], **fields))

        await for_each(self.changes.new_phases, create)
        await for_each(self.changes.phase_updates, update)
        await for_each(self.changes.new_phase_dependencies, self._add_phase_dependency)

    async def _add_phase_dependency(self, edge: Dependency) -> None:
        request = AddPhaseDependency(
            id=self._phases[edge.ref], depends_on_phase_id=self._phases[edge.depends_on]
        )
        await self._attempt("phase dependencies", edge.ref, request, edge)

    async def _approve(self) -> None:
        for ref in self.changes.approvals:
            await self._attempt("phases", ref, ApprovePhase(id=self._phases[ref]))

    async def _create_tasks(self, ids: Ids) -> list[Dependency]:
        """Create the new tasks; answers with the dependencies that are still to be added."""
        dependencies = self.changes.new_dependencies
        ordered = in_order(self.changes.new_tasks, dependencies)
        missing = dict.fromkeys(dependencies)
        for packed in pack(ordered, dependencies, ids, self._bus.nats.max_payload):
            closing = await self._create_acyclic(packed)
            for edge in set(packed.dependencies) - closing:
                del missing[edge]
            made = len(packed.request.items) + len(packed.dependencies) - len(closing)
            self._advance("tasks", made)
        return list(missing)

    async def _create_acyclic(self, packed: PackedRequest) -> set[Dependency]:
        """Create tasks; answers with the relations that would close a cycle with what is here."""
        request = packed.request
        closing: set[Dependency] = set()
        while True:
            try:
                await self._create(request)
            except DependencyCycle as cycle:
                steps = set(pairwise(self._path(cycle)))
                edge = next((edge for edge in packed.dependencies if edge in steps), None)
                if edge is None:
                    raise
                closing.add(edge)
                request = without(request, edge.ref, self._tasks[edge.depends_on])
            else:
                return closing

    def _leave_out(self, kind: str, edge: Dependency, cycle: DependencyCycle) -> None:
        path = self._path(cycle)
        self.left_out.append(SourceEdge(kind, *edge, outcome="closes_here", path=path))

    def _path(self, cycle: DependencyCycle) -> tuple[str, ...]:
        refs = {str(own): ref for ref, own in (*self._phases.items(), *self._tasks.items())}
        return tuple(refs.get(str(own), str(own)) for own in cycle.path)

    async def _create(self, request: CreateManyTasks) -> None:
        """Create tasks; where the service takes less than they say, with their beginnings."""
        try:
            await self._bus.call(request)
        except (Refusal, MaxPayloadError) as failure:
            if not is_too_much(failure):
                raise
            items = []
            for item in request.items:
                description = cut(item.description or "", SHORT_TEXT) or None
                summary = cut(item.summary or "", SHORT_TEXT) or None
                short = {"description": description, "summary": summary}
                items.append(item.model_copy(update=short))
                if (description, summary) != (item.description, item.summary):
                    difference = Difference(item.external_ref or "", f"was cut: {failure}")
                    self.refused.setdefault("texts", []).append(difference)
            await self._bus.call(request.model_copy(update={"items": items}))

    async def _update_tasks(self) -> None:
        async def update(ref: str) -> None:
            fields = dict(self.changes.task_updates[ref])
            if "phase_ref" in fields:
                phase = fields.pop("phase_ref")
                fields["phase_id"] = self._phases[phase] if phase else None
            await self._attempt("tasks", ref, UpdateTask(id=self._tasks[ref], **fields))

        await for_each(self.changes.task_updates, update)

    async def _add_dependency(self, edge: Dependency) -> None:
        request = AddTaskDependency(
            id=self._tasks[edge.ref], depends_on_task_id=self._tasks[edge.depends_on]
        )
        await self._attempt("dependencies", edge.ref, request, edge)

    async def _attempt(
        self, kind: str, ref: str, request: Operation[Any], edge: Dependency | None = None
    ) -> None:
        """Change one thing; that the fleet has made it impossible meanwhile stops nothing else."""
        try:
            await self._bus.call(request)
        except (Refusal, MaxPayloadError) as failure:
            if isinstance(failure, Refusal) and failure.retryable:
                raise
            if edge is not None and isinstance(failure, DependencyCycle):
                if kind == "phase dependencies" and edge not in self._closing:
                    self._closing.append(edge)  # it is tried once more
                    return
                self._leave_out(kind, edge, failure)
            else:
                self.refused.setdefault(kind, []).append(Difference(ref, str(failure)))
        self._advance(kind)

    def _advance(self, what: str, count: int = 1) -> None:
        self._done += count
        self._progress(self._done, self._total, what)

    @property
    def _total(self) -> int:
        changes = self.changes
        return (
            len(changes.new_phases) + len(changes.phase_updates) + len(changes.approvals)
            + len(changes.new_phase_dependencies) + len(changes.new_tasks)
            + len(changes.task_updates) + len(changes.new_dependencies)
        )  # fmt: skip


def _ids(present: Mapping[str, Any], new: Iterable[Any]) -> dict[str, UUID]:
    return {ref: entity.id for ref, entity in present.items()} | {item.ref: uuid7() for item in new}


def _silent(done: int, total: int, what: str) -> None:
    """Say nothing of the progress."""


def _report(load: _Load, ref: str, initiative_id: UUID | None, *, dry_run: bool) -> LoadReport:
    plan, present, changes, refused = load.plan, load.present, load.changes, load.refused
    new_phases = {phase.ref for phase in changes.new_phases}
    changed_phases = {*changes.phase_updates, *changes.approvals} - new_phases
    return LoadReport(
        external_ref=ref,
        initiative_id=initiative_id,
        dry_run=dry_run,
        initiative=Tally.of(1, 0 if present.initiative else 1),
        phases=Tally.of(
            len(plan.phases), len(new_phases), changed_phases, _refs(refused, "phases")
        ),
        tasks=Tally.of(
            len(plan.tasks), len(changes.new_tasks), changes.task_updates, _refs(refused, "tasks")
        ),
        dependencies=_edges(
            plan.dependencies,
            changes.new_dependencies,
            changes.refused_dependencies,
            load,
            "dependencies",
        ),
        phase_dependencies=_edges(
            plan.phase_dependencies, changes.new_phase_dependencies, 0, load, "phase dependencies"
        ),
        skipped=plan.skipped,
        problems=plan.problems,
        left_out=(*plan.left_out, *load.left_out),
        notes=plan.notes,
        not_kept=plan.not_kept,
        differences=(*changes.differences, *(one for some in refused.values() for one in some)),
        gone_tasks=len(present.tasks.keys() - {task.ref for task in plan.tasks}),
        gone_dependencies=len(present.dependencies - set(plan.dependencies))
        + len(present.phase_dependencies - set(plan.phase_dependencies)),
        gone=tuple(gone(plan, present)),
    )


def _refs(refused: Mapping[str, list[Difference]], kind: str) -> list[str]:
    return [difference.ref for difference in refused.get(kind, [])]


def _edges(
    planned: Collection[Dependency],
    missing: Collection[Dependency],
    too_late: int,
    load: _Load,
    kind: str,
) -> Tally:
    refused = len(_refs(load.refused, kind))
    left_out = sum(edge.kind == kind for edge in load.left_out)
    unchanged = len(planned) - len(missing) - too_late
    return Tally(len(missing) - left_out - refused, 0, unchanged, too_late + refused)
