"""Counts the SQL statements of a service, transaction control aside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from bus.storage.database import Database
from bus.storage.driver import driver_of

CONTROL = ("BEGIN", "COMMIT", "ROLLBACK")
INTROSPECTION = ("current_setting('jit')", "pg_catalog.pg_type")
"""What the driver asks once on each new connection, to know the types of a statement."""


@dataclass
class Counted:
    """The statements that ran."""

    texts: list[str] = field(default_factory=list)
    values: list[tuple[Any, ...]] = field(default_factory=list)
    """The parameters of each."""

    @property
    def total(self) -> int:
        return len(self.texts)


@contextmanager
def counting(database: Database) -> Iterator[Counted]:
    """Everything that runs in the pools inside the block, through SQLAlchemy or below it."""
    counted = Counted()
    drivers: set[Any] = set()

    def note(_conn: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        counted.texts.append(statement)
        counted.values.append(tuple(values))

    def note_below(record: Any) -> None:
        query = record.query
        if not query.startswith(CONTROL) and not any(part in query for part in INTROSPECTION):
            counted.texts.append(query)
            counted.values.append(tuple(record.args or ()))

    def watch(driver: Any) -> None:
        if driver not in drivers:
            drivers.add(driver)
            driver.add_query_logger(note_below)

    def watch_new(dbapi_connection: Any, *_rest: Any) -> None:
        watch(dbapi_connection.driver_connection)

    with ExitStack() as stack:
        for engine in (database.write, database.read, database.expensive):
            for name, listener in (("before_cursor_execute", note), ("checkout", watch_new)):
                event.listen(engine.sync_engine, name, listener)
                stack.callback(event.remove, engine.sync_engine, name, listener)
        for connection in database.idle():
            watch(driver_of(connection))
        yield counted
    for driver in drivers:
        if not driver.is_closed():
            driver.remove_query_logger(note_below)
