"""Several commands that take effect together: collected in a block, sent at its end."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import pydantic_core

from bus.contract.model import Reply
from bus.contract.operation import Command
from bus.contract.several import GivenCommand
from contracts.meta.transactions import ExecuteTransaction

R = TypeVar("R", bound=Reply)


class Planned(Generic[R]):
    """A command of a transaction; it has its reply once the block has been left."""

    def __init__(self, command: Command[R]) -> None:
        self.command = command
        self._reply: R | None = None

    @property
    def reply(self) -> R:
        """The reply of the command; an error before the transaction has been executed."""
        if self._reply is None:
            raise RuntimeError("there are no replies before the block of the transaction has ended")
        return self._reply

    def _answered(self, body: dict[str, Any]) -> None:
        kind: type[Any] = self.command.declared.reply
        self._reply = kind.model_validate_json(pydantic_core.to_json(body))


class Transaction:
    """Commands for one transaction, in order; ``client.transaction()`` makes and sends it."""

    def __init__(self) -> None:
        self.position: int | None = None
        """The highest outbox position, once the block has been left."""
        self._planned: list[Planned[Any]] = []

    def call(self, command: Command[R]) -> Planned[R]:
        """Add a command; nothing is sent yet. Name what others create by ids of your own."""
        planned = Planned(command)
        self._planned.append(planned)
        return planned

    def request(self) -> ExecuteTransaction | None:
        """The request that is sent for all of them; None if there are none."""
        if not self._planned:
            return None
        return ExecuteTransaction(
            operations=[
                GivenCommand(
                    subject=planned.command.declared.subject,
                    body=planned.command.model_dump(mode="json", exclude_unset=True),
                )
                for planned in self._planned
            ]
        )

    def answered(self, replies: list[dict[str, Any]], position: int | None) -> None:
        """Give each command its reply."""
        self.position = position
        for planned, reply in zip(self._planned, replies, strict=True):
            planned._answered(reply)  # noqa: SLF001  of this module
