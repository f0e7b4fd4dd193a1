"""Every table, found by importing the tables of every context."""

import importlib
import importlib.util
import pkgutil

from sqlalchemy import MetaData

import persistence
from persistence import _bus_tables
from persistence._tables import Row


def metadata() -> MetaData:
    """The metadata of all tables there are."""
    assert _bus_tables.outbox.metadata is Row.metadata
    for folder in pkgutil.iter_modules(persistence.__path__):
        tables = f"persistence.{folder.name}.tables"
        if folder.ispkg and importlib.util.find_spec(tables):
            importlib.import_module(tables)
    return Row.metadata
