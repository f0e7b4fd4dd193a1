"""Whatever must be unique is named so, and whoever can violate it declares the 409."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from sqlalchemy import Index, Table, UniqueConstraint, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.errors import AlreadyExists
from bus.contract.operation import Operation
from bus.running.discovery import is_partition, metadata
from bus.running.failures import refusal_for_constraint
from bus.storage.tables import TABLES
from fleetbus import domain

METADATA = metadata("persistence")
CONTEXTS = sorted({str(table.schema) for table in TABLES.values()})
OPERATIONS = {operation.declared.subject: operation for operation in domain.catalogue().operations}
ENTITIES = {table: entity for entity, table in TABLES.items()}

UNIQUE = """
    SELECT t.relname AS table_name, i.relname AS name
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE x.indisunique AND NOT x.indisprimary AND n.nspname = ANY(:schemas)
"""

COMPANIONS = {
    "uq_initiative_projects__initiative_id_project_id": (),
    "uq_phase_dependencies__phase_id_depends_on_phase_id": ("db.phases.add_dependency",),
    "uq_task_dependencies__task_id_depends_on_task_id": (
        "db.tasks.add_dependency",
        "db.tasks.create",
        "db.tasks.create_many",
    ),
    "uq_worker_checks__check_id_worker_name": ("db.checks.start",),
}
"""Who writes what no request names by its columns. Projects are set under their initiative's lock,
each once."""

NO_WRITER = {
    ("uq_accounts__provider_email", "db.accounts.acquire"): "it looks for one of this provider",
    ("uq_tasks__initiative_id_external_ref", "db.tasks.claim"): "it looks among these",
    ("uq_schedules__name", "db.schedules.delete"): "it names one",
    ("uq_schedules__name", "db.schedules.trigger"): "it names one",
    ("uq_schedules__name", "db.schedules.upsert"): "the name is reserved first",
    ("uq_daily_summaries__day", "db.daily_summaries.compute"): "the day is reserved first",
    ("uq_daily_summaries__day", "db.daily_summaries.upsert"): "the day is reserved first",
}
"""Who names a column and cannot violate it."""


def uniques() -> list[tuple[Table, UniqueConstraint | Index]]:
    found: list[tuple[Table, UniqueConstraint | Index]] = []
    for table in METADATA.sorted_tables:
        if table.schema in CONTEXTS:
            found += [(table, c) for c in table.constraints if isinstance(c, UniqueConstraint)]
            found += [(table, index) for index in table.indexes if index.unique]
    return sorted(found, key=lambda one: str(one[1].name))


def parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from parts(argument)


def names(model: type[BaseModel]) -> set[str]:
    """The fields of a request, and of what lies in it."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= names(part)
    return found


def tells_of(operation: type[Operation[Any]], entity: type[Entity]) -> bool:
    events = operation.declared.emits
    fields = [field for event in events for field in event.model_fields.values()]
    return any(entity in parts(field.annotation) for field in fields)


def writers(table: Table, unique: UniqueConstraint | Index) -> set[str]:
    """The commands that tell of the table's entity and name one of the unique columns."""
    name = str(unique.name)
    found = set(COMPANIONS.get(name, ()))
    columns = {column.name for column in unique.columns}
    for operation in OPERATIONS.values():
        declared = operation.declared
        if declared.kind != "command" or not columns & names(operation):
            continue
        if (entity := ENTITIES.get(table)) and tells_of(operation, entity):
            found.add(declared.subject)
    return found


class TestUnique:
    async def test_each_is_named_for_its_table_and_is_a_409(self, db: AsyncConnection) -> None:
        schemas = {"schemas": [*CONTEXTS, "bus"]}
        rows = (await db.execute(text(UNIQUE), schemas)).all()
        found = [row for row in rows if not is_partition(row.table_name)]
        nouns = {table.name: entity.noun for table, entity in ENTITIES.items()}
        assert {row.name for row in found} >= {str(unique.name) for _, unique in uniques()}
        for row in found:
            assert row.name.startswith(f"uq_{row.table_name}__")
            refusal = refusal_for_constraint(row.name, METADATA)
            assert isinstance(refusal, AlreadyExists)
            assert refusal.entity == nouns.get(row.table_name, refusal.entity)

    @pytest.mark.parametrize(("table", "unique"), uniques(), ids=lambda one: str(one.name))
    def test_who_can_violate_it_declares_so(
        self, table: Table, unique: UniqueConstraint | Index
    ) -> None:
        name = str(unique.name)
        found = writers(table, unique)
        assert found or name in COMPANIONS
        for subject in found:
            declares = AlreadyExists in OPERATIONS[subject].declared.errors
            assert declares != ((name, subject) in NO_WRITER), subject
