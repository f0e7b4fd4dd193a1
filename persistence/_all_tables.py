"""Every table, found by importing the tables of every context."""

import importlib
import pkgutil

from sqlalchemy import MetaData

import persistence
from persistence import _bus_tables
from persistence._tables import Row


def metadata() -> MetaData:
    """The metadata of all tables there are."""
    assert _bus_tables.outbox.metadata is Row.metadata
    for folder in pkgutil.iter_modules(persistence.__path__):
        if folder.ispkg:
            importlib.import_module(f"persistence.{folder.name}.tables")
    return Row.metadata
