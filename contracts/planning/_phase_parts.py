"""The errors and the replies of phases, apart from the phase itself."""

from typing import Literal

from bus.contract import Conflict, Count, Id, NotFound, Reply

PhaseOrder = Literal["position", "-position", "created_at", "-created_at", "name", "-name"]


class PhaseNotFound(NotFound, detail="phase {id} does not exist"):
    """There is no such phase."""

    id: Id


class DependenciesOpen(Conflict, detail="phase {id} depends on phases that are not completed"):
    """The phase depends on others that are not completed."""

    id: Id
    open: list[Id]
    """The phases that it still waits for."""


class PhaseContents(Reply):
    """What belonged to a phase and was deleted with it."""

    tasks: Count
    """Its tasks, and the tasks below them."""
    dependencies: Count
    """Its dependencies on other phases, and theirs on it."""


class PhaseDeletion(Reply):
    """What was deleted."""

    id: Id
    deleted: PhaseContents


class PhaseSequence(Reply):
    """The phases of an initiative in their order."""

    ids: list[Id]
    """All of them, first to last."""
    moved: list[Id]
    """Those whose position changed; ``phase.updated`` is emitted for each."""
