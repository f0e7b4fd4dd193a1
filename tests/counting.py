"""Counts the SQL statements of an engine, transaction control aside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass
class Counted:
    """The statements that ran."""

    texts: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.texts)


@contextmanager
def counting(*engines: AsyncEngine) -> Iterator[Counted]:
    """Everything that runs on these engines inside the block."""
    counted = Counted()

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        counted.texts.append(statement)

    with ExitStack() as stack:
        for engine in engines:
            event.listen(engine.sync_engine, "before_cursor_execute", note)
            stack.callback(event.remove, engine.sync_engine, "before_cursor_execute", note)
        yield counted
