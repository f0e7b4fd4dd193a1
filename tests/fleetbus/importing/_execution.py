from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fleetbus.importing.plan import Dependency, Plan


def never_completed(
    phase_of: dict[str, str | None],
    dependencies: Iterable[Dependency],
    phase_dependencies: Iterable[Dependency],
    parents: Mapping[str, str | None] = MappingProxyType({}),
) -> set[str]:
    """Execute a plan as the service would, and name the tasks that never become ready."""
    dependencies, phase_dependencies = list(dependencies), list(phase_dependencies)
    left = set(phase_of)
    while left:
        unfinished = {phase_of[ref] for ref in left}
        held = {edge.ref for edge in phase_dependencies if edge.depends_on in unfinished}
        waiting = {edge.ref for edge in dependencies if edge.depends_on in left}
        while below := {ref for ref in left - waiting if parents.get(ref) in waiting}:
            waiting |= below
        ready = {ref for ref in left - waiting if phase_of[ref] not in held}
        if not ready:
            break
        left -= ready
    return left


def stuck(plan: Plan) -> set[str]:
    phase_of = {task.ref: task.phase_ref for task in plan.tasks}
    parents = {task.ref: task.parent_ref for task in plan.tasks}
    return never_completed(phase_of, plan.dependencies, plan.phase_dependencies, parents)


def assert_consistent(plan: Plan) -> None:
    """Every reference resolves, parents come first, and the whole can be executed."""
    phases = {phase.ref for phase in plan.phases}
    placed: set[str] = set()
    for task in plan.tasks:
        assert task.ref not in placed
        assert task.phase_ref is None or task.phase_ref in phases
        assert task.parent_ref is None or task.parent_ref in placed
        placed.add(task.ref)
    assert not placed & phases
    assert {ref for edge in plan.dependencies for ref in edge} <= placed
    assert {ref for edge in plan.phase_dependencies for ref in edge} <= phases
    accounted = len(placed) + len(phases) + len(plan.skipped) + len(plan.problems)
    assert accounted == plan.records_read
    assert stuck(plan) == set()
