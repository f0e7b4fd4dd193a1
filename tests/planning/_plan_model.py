"""What a plan should be, said without a database: containers, order, what can be started."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from uuid import UUID


@dataclass
class Todo:
    """A task."""

    phase: UUID | None
    parent: UUID | None
    status: str = "pending"
    needs: set[UUID] = field(default_factory=set)


@dataclass
class Step:
    """A phase."""

    status: str
    before: str | None = None
    needs: set[UUID] = field(default_factory=set)


@dataclass
class Plan:
    """An initiative with all that it holds."""

    mode: str
    status: str = "active"
    before: str | None = None
    tasks: dict[UUID, Todo] = field(default_factory=dict)
    phases: dict[UUID, Step] = field(default_factory=dict)

    def copy(self) -> Plan:
        return deepcopy(self)

    def statuses(self) -> dict[UUID, str]:
        found = {id_: task.status for id_, task in self.tasks.items()}
        return found | {id_: phase.status for id_, phase in self.phases.items()}

    def phase_of(self, id_: UUID) -> UUID | None:
        task = self.tasks[id_]
        if task.phase is None and task.parent is not None:
            return self.phase_of(task.parent)
        return task.phase

    def held_by(self, phase: UUID) -> list[UUID]:
        return [id_ for id_ in self.tasks if self.phase_of(id_) == phase]

    def below(self, top: UUID) -> list[UUID]:
        found = [top]
        for id_ in found:
            found += [child for child, task in self.tasks.items() if task.parent == id_]
        return found

    def is_open(self, id_: UUID) -> bool:
        return self.tasks[id_].status != "completed"

    def settle(self) -> None:
        """Every container is what it holds."""
        for id_, phase in self.phases.items():
            held = self.held_by(id_)
            if phase.status == "in_progress" and held and not any(map(self.is_open, held)):
                phase.status = "completed" if self.mode == "yolo" else "pending_review"
            elif phase.status == "pending_review" and any(map(self.is_open, held)):
                phase.status = "in_progress"
        children = [*self.statuses().values()]
        done = all(status == "completed" for status in children)
        if self.status == "active" and children and done:
            self.status = "pending_review"
        elif self.status in {"pending_review", "completed"} and not done:
            self.status = "active"

    def take_up(self, *added: UUID) -> None:
        """Work was added: the phases that it is in go on."""
        for id_ in filter(self.is_open, added):
            phase = self.phase_of(id_)
            if phase is not None and self.phases[phase].status in {"pending_review", "completed"}:
                self.phases[phase].status = "in_progress"

    def delete_task(self, top: UUID) -> None:
        for id_ in self.below(top):
            self.tasks.pop(id_)
        for task in self.tasks.values():
            task.needs &= self.tasks.keys()

    def delete_phase(self, id_: UUID) -> None:
        for task in [one for one, todo in self.tasks.items() if todo.phase == id_]:
            if task in self.tasks:
                self.delete_task(task)
        self.phases.pop(id_)
        for phase in self.phases.values():
            phase.needs.discard(id_)

    def dispatchable(self) -> set[UUID]:
        return {
            id_
            for id_, phase in self.phases.items()
            if phase.status == "approved"
            and all(self.phases[need].status == "completed" for need in phase.needs)
        }

    def _waits_for(self, what: tuple[str, UUID]) -> Iterator[tuple[str, UUID]]:
        kind, id_ = what
        if kind == "task":
            above: UUID | None = id_
            while above is not None:
                yield from (("task", need) for need in self.tasks[above].needs)
                above = self.tasks[above].parent
            if (phase := self.phase_of(id_)) is not None:
                yield "begun", phase
        elif kind == "begun":
            yield from (("done", need) for need in self.phases[id_].needs)
        else:
            yield "begun", id_
            yield from (("task", task) for task in self.held_by(id_))

    def goes_round(self) -> bool:
        """Whether anything waits for itself."""
        left = {("task", id_) for id_ in self.tasks}
        left |= {(kind, id_) for id_ in self.phases for kind in ("begun", "done")}
        waits = {one: set(self._waits_for(one)) for one in left}
        while free := {one for one in left if not waits[one] & left}:
            left -= free
        return bool(left)
