"""A plan as it is imported, whatever tool it was written in."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Priority = Literal["high", "medium", "low"]
Category = Literal[
    "execute", "research", "discuss", "plan", "detail", "refine", "verify", "merge", "review"
]
TaskStatus = Literal["pending", "in_progress", "completed", "blocked"]
PhaseStatus = Literal["pending", "completed", "blocked"]
Outcome = Literal[
    "used",
    "dangling",
    "cycle",
    "self",
    "duplicate",
    "skipped",
    "second_parent",
    "other_kind",
    "malformed",
    "too_many",
    "met",
    "held",
    "no_children",
    "stays_phase",
    "external",
    "closes_here",
]

DETAILS: dict[Outcome, str] = {
    "used": "used",
    "dangling": "{edge.depends_on} is not in the plan",
    "cycle": "would close the cycle {path}",
    "self": "{edge.ref} names itself",
    "duplicate": "stated before",
    "skipped": "{path} is not imported",
    "second_parent": "a task has one parent, and an earlier one was taken",
    "other_kind": "{edge.kind} does not order tasks; it is named in the description",
    "malformed": "the entry could not be read",
    "too_many": "stands for more dependencies than a plan may have",
    "met": "nothing waits here any longer: {path} is over",
    "held": "{path} is open and not imported; {edge.ref} is blocked until a person decides",
    "no_children": "{edge.depends_on} has no children to wait for",
    "stays_phase": "{edge.ref} was imported as a phase and stays one; a phase has no parent",
    "external": "{edge.depends_on} is of another project; {edge.ref} is blocked until a person "
    "finds it there",
    "closes_here": "{edge.ref} cannot wait for {edge.depends_on}: with what is here already it "
    "would close the cycle {path}",
}
PATH_SHOWN = 12


class PlanUnreadable(ValueError):
    """The file holds no plan that could be read."""


class Dependency(NamedTuple):
    """`ref` waits for `depends_on`."""

    ref: str
    depends_on: str


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """A phase to be; phases have no `external_ref`, so their names are unique in the plan."""

    ref: str
    name: str
    description: str = ""
    status: PhaseStatus = "pending"
    blocked_reason: str | None = None

    @property
    def content(self) -> dict[str, Any] | None:
        """The description as a Tiptap document, a paragraph for each block of text."""
        blocks = [block.strip() for block in self.description.split("\n\n") if block.strip()]
        if not blocks:
            return None
        paragraphs = [
            {"type": "paragraph", "content": [{"type": "text", "text": block}]} for block in blocks
        ]
        return {"type": "doc", "content": paragraphs}


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task to be; `ref` becomes its `external_ref`."""

    ref: str
    name: str
    phase_ref: str | None = None
    parent_ref: str | None = None
    description: str = ""
    priority: Priority = "medium"
    category: Category = "execute"
    status: TaskStatus = "pending"
    blocked_reason: str | None = None
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class SourceEdge:
    """A relation as the source states it, and what became of it."""

    kind: str
    ref: str
    depends_on: str
    outcome: Outcome = "used"
    path: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """What became of the relation, in words."""
        return DETAILS[self.outcome].format(edge=self, path=_shown(self.path))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record left out on purpose."""

    ref: str
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that could not be read: where it stands and what is wrong with it."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something a reader of the imported plan should know about one of its records."""

    ref: str
    text: str


class Kept(NamedTuple):
    """What an earlier import made of the records of a plan; what is there keeps its kind."""

    phases: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Phases, tasks with each parent before its children, and an account of every record."""

    name: str
    records_read: int
    phases: tuple[PlannedPhase, ...]
    tasks: tuple[PlannedTask, ...]
    dependencies: tuple[Dependency, ...]
    phase_dependencies: tuple[Dependency, ...]
    edges: tuple[SourceEdge, ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]
    not_kept: tuple[Note, ...] = ()
    """Fields with something in them for which there is no place."""
    reread: "Callable[[Kept], Plan] | None" = field(default=None, compare=False, repr=False)
    """Reads the same source again; None if its records are always of the same kind."""

    def keeping(self, kept: Kept) -> "Plan":
        """The plan in which no record is of another kind than it was imported as."""
        changed = any(phase.ref in kept.tasks for phase in self.phases) or any(
            task.ref in kept.phases for task in self.tasks
        )
        return self.reread(kept) if changed and self.reread is not None else self

    @property
    def left_out(self) -> tuple[SourceEdge, ...]:
        """The relations that are not in the imported plan."""
        return tuple(edge for edge in self.edges if edge.outcome != "used")

    def summary(self) -> dict[str, int]:
        """Counts in the order of a table's rows; a row of a part is named `whole: part`."""
        return {
            "records": self.records_read,
            "tasks": len(self.tasks),
            "phases": len(self.phases),
            **_parts("skipped", (record.reason for record in self.skipped)),
            "problems": len(self.problems),
            **self._edge_counts(),
            "task dependencies": len(self.dependencies),
            "phase dependencies": len(self.phase_dependencies),
            "notes": len(self.notes),
            "not kept": len(self.not_kept),
        }

    def _edge_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for kind in dict.fromkeys(edge.kind for edge in self.edges):
            counts |= _parts(
                f"{kind} edges", (edge.outcome for edge in self.edges if edge.kind == kind)
            )
        return counts


def unfinished_phases(tasks: Iterable[PlannedTask]) -> set[str]:
    """The phases with a task that is not completed."""
    open_tasks = (task for task in tasks if task.status != "completed")
    return {task.phase_ref for task in open_tasks if task.phase_ref is not None}


def parents_first(tasks: Iterable[PlannedTask]) -> tuple[PlannedTask, ...]:
    """The tasks in their order, save that each parent comes before its children."""
    by_ref = {task.ref: task for task in tasks}
    placed: dict[str, PlannedTask] = {}
    for task in by_ref.values():
        lineage: list[PlannedTask] = []
        unplaced: PlannedTask | None = task
        while unplaced is not None and unplaced.ref not in placed:
            lineage.append(unplaced)
            unplaced = by_ref.get(unplaced.parent_ref) if unplaced.parent_ref else None
        placed.update((ancestor.ref, ancestor) for ancestor in reversed(lineage))
    return tuple(placed.values())


def notes_on_order(tasks: Iterable[PlannedTask], dependencies: Iterable[Dependency]) -> list[Note]:
    """Name what may surprise when the plan runs: only a person sets free what is blocked, and with
    it what waits for it or lies below it.
    """
    by_ref = {task.ref: task for task in tasks}
    waits = [
        edge.depends_on
        for edge in dependencies
        if by_ref[edge.ref].status == "pending" and by_ref[edge.depends_on].status == "blocked"
    ]
    below = [
        task.parent_ref
        for task in by_ref.values()
        if task.parent_ref
        and task.status == "pending"
        and by_ref[task.parent_ref].status == "blocked"
    ]
    return [
        *(
            Note(ref, f"blocked, with pending tasks that wait for it: {n}")
            for ref, n in Counter(waits).items()
        ),
        *(
            Note(ref, f"blocked, with pending tasks below it: {n}")
            for ref, n in Counter(below).items()
        ),
    ]


def _parts(whole: str, parts: Iterable[str]) -> dict[str, int]:
    counts = Counter(parts)
    named = {f"{whole}: {part}": count for part, count in counts.most_common()}
    return {whole: counts.total(), **named}


def _shown(path: tuple[str, ...]) -> str:
    if len(path) > PATH_SHOWN:
        half = PATH_SHOWN // 2
        path = (*path[:half], f"({len(path) - PATH_SHOWN} more)", *path[-half:])
    return " → ".join(path)
