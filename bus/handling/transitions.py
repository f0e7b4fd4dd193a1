"""Transition tables: which change of status an action may make. Docs and tests read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus.contract.errors import InvalidTransition


@dataclass(frozen=True)
class Transitions:
    """The state machine of one entity: for each action the statuses it may start from.

    ``actions`` maps an action to ``{status before: statuses after}``.
    """

    noun: str
    initial: tuple[str, ...]
    actions: Mapping[str, Mapping[str, tuple[str, ...]]]
    more: str = ""
    """What the statuses alone do not say, for the docs."""

    def require(self, entity: Any, action: str) -> None:
        """Refuse unless the action may start from the entity's present status."""
        if entity.status not in self.actions[action]:
            raise self.refusal(entity, action)

    def refusal(
        self, entity: Any, action: str, *, expected: str | None = None
    ) -> InvalidTransition:
        """The refusal of an action that may not start from the entity's present status.

        ``expected`` says what it may start from, where that is more than a status.
        """
        allowed = self.actions[action]
        targets = sorted({target for after in allowed.values() for target in after})
        return InvalidTransition(
            entity=self.noun,
            id=entity.id,
            from_=entity.status,
            to=" or ".join(targets),
            expected=expected or " or ".join(allowed),
        )

    def edges(self) -> list[tuple[str, str, str]]:
        """Every (status before, action, status after)."""
        return [
            (before, action, after)
            for action, allowed in self.actions.items()
            for before, targets in allowed.items()
            for after in targets
        ]
