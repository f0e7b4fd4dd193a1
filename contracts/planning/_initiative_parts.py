"""Models that belong to initiatives."""

from bus.contract import Count, Id, Reply


class InitiativeContents(Reply):
    """What belonged to an initiative and was deleted with it."""

    phases: Count
    tasks: Count


class InitiativeDeletion(Reply):
    """What was deleted."""

    id: Id
    deleted: InitiativeContents
