"""What is put on record of a command that no event tells: a secret was revealed, a guess failed."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

from bus.contract.entity import Entity

Detail: TypeAlias = str | int | float | bool | UUID | datetime | None


class Audit(Protocol):
    """Puts on record what happened, by whom, with the transaction: ``audit("token.revealed", …)``.

    It is kept if the command is accepted, or refused with something kept; of a dry run it is not.
    What has an event needs none. The detail holds no secret and no bulk: a value of a ``Sensitive``
    field of the request or the reply fails the command.
    """

    def __call__(
        self, kind: str, /, *, entity: Entity | None = None, ip: str | None = None, **detail: Detail
    ) -> None:
        """Record ``<what>.<happened>``, about an entity if about one."""
        ...
