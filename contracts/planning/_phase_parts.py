"""What phases are refused with and answered with, beside themselves."""

from bus.contract import Conflict, Count, Id, NotFound, Reply


class PhaseNotFound(NotFound, detail="phase {id} does not exist"):
    """There is no such phase."""

    id: Id


class DependenciesOpen(Conflict, detail="phase {id} depends on phases that are not completed"):
    """The phase depends on others that are not completed."""

    id: Id
    open: list[Id]
    """The phases that it waits for."""


class PhaseContents(Reply):
    """What belonged to a phase and went along when it was deleted."""

    tasks: Count
    """Its tasks, and the tasks below them."""
    dependencies: Count
    """Dependencies on other phases, and of other phases on it."""


class PhaseDeletion(Reply):
    """What was deleted."""

    id: Id
    deleted: PhaseContents


class PhaseSequence(Reply):
    """The phases of an initiative in their order."""

    ids: list[Id]
    """All of them, first to last."""
    moved: list[Id]
    """Those whose position was changed; each is told as ``phase.updated``."""
