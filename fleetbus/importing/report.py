"""What became of a plan that was brought into the system."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from fleetbus.importing.plan import Note, Problem, SkippedRecord, SourceEdge


@dataclass(slots=True)
class Tally:
    """How many of a kind were, or in a dry run would be, created, changed and left as they are."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    """What could not be written; each is named among the differences."""

    @classmethod
    def of(
        cls, planned: int, created: int, changed: Collection[str] = (), refused: Iterable[str] = ()
    ) -> Self:
        """Of those that are planned, these were to be changed; what was refused failed."""
        failed = set(refused) & set(changed)
        unchanged = planned - created - len(changed)
        return cls(created, len(changed) - len(failed), unchanged, len(failed))

    @property
    def total(self) -> int:
        return self.created + self.updated + self.unchanged + self.refused

    @property
    def written(self) -> int:
        return self.created + self.updated


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the plan says and the system does not, and that an import leaves so."""

    ref: str
    text: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """An account of every record and relation of a plan."""

    external_ref: str
    initiative_id: UUID | None
    """None where a dry run found no initiative."""
    dry_run: bool
    initiative: Tally
    phases: Tally
    tasks: Tally
    dependencies: Tally
    phase_dependencies: Tally
    skipped: tuple[SkippedRecord, ...]
    problems: tuple[Problem, ...]
    left_out: tuple[SourceEdge, ...]
    notes: tuple[Note, ...]
    not_kept: tuple[Note, ...]
    """What the plan says that has no place here, by field."""
    differences: tuple[Difference, ...]
    gone_tasks: int
    """Tasks of an earlier import that the plan no longer has; they are left alone."""
    gone_dependencies: int
    """Dependencies that the plan no longer has; they are left alone."""
    gone: tuple[Difference, ...] = ()
    """All that the plan no longer has and that is left alone, one by one."""

    @property
    def unchanged(self) -> bool:
        """Whether the plan had nothing new to say."""
        return not any(tally.written for _, tally in self._tallies())

    @property
    def records(self) -> int:
        """The records accounted for: as many as were read."""
        kept = self.phases.total + self.tasks.total
        return kept + len(self.skipped) + len(self.problems)

    def rows(self) -> list[tuple[str, int, int, int, int]]:
        """The rows of a table: what, created, updated, unchanged, refused."""
        return [
            (name, tally.created, tally.updated, tally.unchanged, tally.refused)
            for name, tally in self._tallies()
        ]

    def remarks(self) -> list[tuple[str, str, str]]:
        """Everything that did not simply go in: of which sort, at which record, and why."""
        return [
            *(("problem", problem.where, problem.text) for problem in self.problems),
            *(("skipped", record.ref, record.reason) for record in self.skipped),
            *(("left out", edge.ref, f"{edge.kind}: {edge.detail}") for edge in self.left_out),
            *(("differs", difference.ref, difference.text) for difference in self.differences),
            *(("gone", difference.ref, difference.text) for difference in self.gone),
            *(("note", note.ref, note.text) for note in self.notes),
            *(("not kept", note.ref, note.text) for note in self.not_kept),
        ]

    def _tallies(self) -> Iterator[tuple[str, Tally]]:
        yield "initiative", self.initiative
        yield "phases", self.phases
        yield "tasks", self.tasks
        yield "dependencies", self.dependencies
        yield "phase dependencies", self.phase_dependencies
