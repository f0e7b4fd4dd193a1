"""What an import has to write: a plan compared with what the system has of it.

The plan decides on what things say, the system on how far they are: names, descriptions,
priorities, categories and phases follow the plan, while a status, once there, is the fleet's.
Positions are given once, since a line inserted into a file would move everything after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bus.contract.fields import JsonObject
from contracts.planning.phases import Phase
from contracts.planning.tasks import Task
from fleetbus.importing.plan import Dependency, Plan, PlannedPhase, PlannedTask
from fleetbus.importing.present import Present
from fleetbus.importing.records import MAX_PHASE_TEXT
from fleetbus.importing.report import Difference

NOT_BEGUN = {"pending", "blocked"}
CLOSED = {"pending_review", "completed", "blocked"}

_DOCUMENT: TypeAdapter[dict[str, Any] | None] = TypeAdapter(JsonObject | None)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written, and what will stay different."""

    new_phases: tuple[PlannedPhase, ...]
    phase_updates: dict[str, dict[str, Any]]
    waiting_phases: frozenset[str]
    """Those with a phase before them that is not completed."""
    approvals: tuple[str, ...]
    """Waiting phases to approve once their dependencies are there."""
    new_tasks: tuple[PlannedTask, ...]
    task_updates: dict[str, dict[str, Any]]
    """Changed fields; the phase is named by its ref, as `phase_ref`."""
    new_dependencies: tuple[Dependency, ...]
    new_phase_dependencies: tuple[Dependency, ...]
    refused_dependencies: int
    differences: tuple[Difference, ...]


def compare(plan: Plan, present: Present) -> Changes:
    """Find what the plan has and the system lacks."""
    missing = [edge for edge in plan.dependencies if edge not in present.dependencies]
    too_late = [edge for edge in missing if _has_begun(present, edge.ref)]
    waiting = _waiting(plan, present)
    return Changes(
        new_phases=tuple(phase for phase in plan.phases if phase.ref not in present.phases),
        phase_updates={
            phase.ref: fields
            for phase in plan.phases
            if phase.ref in present.phases
            and (fields := _phase_update(phase, present.phases[phase.ref]))
        },
        waiting_phases=frozenset(waiting),
        approvals=tuple(_approvals(plan, present, waiting)),
        new_tasks=tuple(task for task in plan.tasks if task.ref not in present.tasks),
        task_updates=_task_updates(plan.tasks, present),
        new_dependencies=tuple(edge for edge in missing if edge not in set(too_late)),
        new_phase_dependencies=tuple(
            edge for edge in plan.phase_dependencies if edge not in present.phase_dependencies
        ),
        refused_dependencies=len(too_late),
        differences=tuple(_differences(plan, present, too_late)),
    )


def gone(plan: Plan, present: Present) -> Iterator[Difference]:
    """Name what is there and no longer in the plan; it is left alone."""
    for ref in sorted(present.phases.keys() - {phase.ref for phase in plan.phases}):
        yield Difference(ref, "a phase that is no longer in the plan")
    for ref in sorted(present.tasks.keys() - {task.ref for task in plan.tasks}):
        yield Difference(ref, "a task that is no longer in the plan")
    edges = present.dependencies | present.phase_dependencies
    for edge in sorted(edges - {*plan.dependencies, *plan.phase_dependencies}):
        yield Difference(edge.ref, f"waits here for {edge.depends_on}, and no longer in the plan")


def _has_begun(present: Present, ref: str) -> bool:
    task = present.tasks.get(ref)
    return task is not None and task.status not in NOT_BEGUN


def _waiting(plan: Plan, present: Present) -> set[str]:
    statuses = {phase.ref: str(phase.status) for phase in plan.phases}
    statuses |= {ref: phase.status for ref, phase in present.phases.items()}
    return {
        edge.ref for edge in plan.phase_dependencies if statuses[edge.depends_on] != "completed"
    }


def _approvals(plan: Plan, present: Present, waiting: set[str]) -> Iterator[str]:
    """The waiting phases that are pending: new ones, and those of an import that broke off."""
    dependent = {edge.ref for edge in plan.phase_dependencies}
    for phase in plan.phases:
        existing = present.phases.get(phase.ref)
        pending = phase.ref in waiting if existing is None else existing.status == "pending"
        if phase.status == "pending" and phase.ref in dependent and pending:
            yield phase.ref


def _phase_update(planned: PlannedPhase, existing: Phase) -> dict[str, Any]:
    return _changed(existing, {"name": planned.name, "content": content_of_phase(planned)})


def _task_updates(tasks: Iterable[PlannedTask], present: Present) -> dict[str, dict[str, Any]]:
    phase_refs = {phase.id: ref for ref, phase in present.phases.items()}
    updates = {}
    for planned in tasks:
        existing = present.tasks.get(planned.ref)
        if existing is None:
            continue
        fields = _changed(existing, content_of(planned))
        # A phase that is in no plan has no ref, and the plan's own then takes its place.
        known = phase_refs.get(existing.phase_id) if existing.phase_id else None
        if planned.phase_ref != known or (existing.phase_id and known is None):
            fields["phase_ref"] = planned.phase_ref
        if fields:
            updates[planned.ref] = fields
    return updates


def content_of_phase(planned: PlannedPhase) -> dict[str, Any] | None:
    """The document of a phase; without its paragraphs where these make it too large."""
    content = planned.content
    try:
        return _DOCUMENT.validate_python(content)
    except ValidationError:
        text = {"type": "text", "text": planned.description[:MAX_PHASE_TEXT]}
        return {"type": "doc", "content": [{"type": "paragraph", "content": [text]}]}


def content_of(planned: PlannedTask) -> dict[str, Any]:
    """The fields of a task that follow the plan."""
    return {
        "name": planned.name,
        "description": planned.description or None,
        "category": planned.category,
        "priority": planned.priority,
    }


def _changed(existing: Phase | Task, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if getattr(existing, name) != value}


def _differences(
    plan: Plan, present: Present, too_late: Iterable[Dependency]
) -> Iterator[Difference]:
    if present.initiative is not None and present.initiative.status != "active":
        status = present.initiative.status
        closed = "; nothing is added to it until it is unarchived" if status == "archived" else ""
        yield Difference(plan.name, f"the initiative is {status}, not active{closed}")
    for phase in plan.phases:
        if text := _phase_differs(phase, present, plan):
            yield Difference(phase.ref, text)
    refs = {task.id: ref for ref, task in present.tasks.items()}
    for planned in plan.tasks:
        existing = present.tasks.get(planned.ref)
        if existing is None:
            continue
        if _status_differs(planned.status, existing.status):
            yield Difference(planned.ref, f"{planned.status} in the plan, {existing.status} here")
        if planned.parent_ref != (existing.parent_task_id and refs.get(existing.parent_task_id)):
            yield Difference(planned.ref, "has another parent in the plan; a parent stays")
    for edge in too_late:
        text = f"is {present.tasks[edge.ref].status} and cannot come to wait for {edge.depends_on}"
        yield Difference(edge.ref, text)


def _phase_differs(planned: PlannedPhase, present: Present, plan: Plan) -> str | None:
    tasks = [task for task in plan.tasks if task.phase_ref == planned.ref]
    existing = present.phases.get(planned.ref)
    status = existing.status if existing else "in_progress"
    if existing and _status_differs(planned.status, existing.status):
        return f"{planned.status} in the plan, {existing.status} here"
    new = sum(task.status == "pending" and task.ref not in present.tasks for task in tasks)
    if existing and new and status in CLOSED:
        return f"{status} here, so that new tasks in it cannot begin: {new}"
    finished = all(task.status == "completed" for task in tasks)
    if planned.status == "pending" and status == "in_progress" and finished:
        return "open, though all its tasks are completed: nothing completes it by itself"
    return None


def _status_differs(planned: str, here: str) -> bool:
    """Whether a person should know; that the fleet has got further than the plan says is normal."""
    if planned == "completed":
        return here != "completed"
    if planned == "blocked":
        return here not in {"blocked", "completed"}
    return here == "blocked"
