"""Every table, found by importing the tables of every context."""

import importlib
import importlib.util
import pkgutil

from sqlalchemy import MetaData

from bus.storage.own import outbox_partitions
from bus.storage.own import tables as own
from bus.storage.partitions import is_daily
from bus.storage.tables import Row


def metadata(persistence: str) -> MetaData:
    """The metadata of the bus's own tables and of all under a package, given by its name."""
    assert own.outbox.metadata is Row.metadata
    root = importlib.import_module(persistence)
    for folder in pkgutil.iter_modules(root.__path__):
        tables = f"{persistence}.{folder.name}.tables"
        if folder.ispkg and importlib.util.find_spec(tables):
            importlib.import_module(tables)
    return Row.metadata


def is_partition(table: str | None) -> bool:
    """Whether a table is a part of a larger one, made and dropped while the service runs."""
    return is_daily(table) or outbox_partitions.is_partition(table)
