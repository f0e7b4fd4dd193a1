"""Every table, found by importing the tables of every context."""

import importlib
import importlib.util
import pkgutil

from sqlalchemy import MetaData

import persistence
from persistence import _bus_tables, _outbox_partitions
from persistence._tables import Row
from persistence.agents import _log_partitions


def metadata() -> MetaData:
    """The metadata of all tables there are."""
    assert _bus_tables.outbox.metadata is Row.metadata
    for folder in pkgutil.iter_modules(persistence.__path__):
        tables = f"persistence.{folder.name}.tables"
        if folder.ispkg and importlib.util.find_spec(tables):
            importlib.import_module(tables)
    return Row.metadata


def is_partition(table: str | None) -> bool:
    """Whether a table is a part of a larger one, made and dropped while the service runs."""
    return _outbox_partitions.is_partition(table) or _log_partitions.is_partition(table)
