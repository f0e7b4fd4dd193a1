"""Laws of the schema, read from the database's own catalogue, and of who writes SQL."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import handlers
import persistence
from bus.contract.entity import Entity
from bus.running.discovery import is_partition
from bus.storage.tables import TABLES

CONTEXTS = sorted({str(table.schema) for table in TABLES.values()})
NAMED = {
    f"{table.schema}.{table.name}"
    for entity, table in TABLES.items()
    if entity.model_fields["id"].annotation is str
}
"""Tables whose ids are names that callers give."""

FOREIGN_KEYS = """
    SELECT c.conrelid::regclass::text AS table_name, a.attname AS column_name
    FROM pg_constraint c
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    WHERE c.contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1] AND i.indpred IS NULL
    )
"""
COLUMNS = """
    SELECT table_schema || '.' || table_name AS table_name, column_name, data_type, is_nullable
    FROM information_schema.columns WHERE table_schema = ANY(:schemas)
"""
CONSTRAINTS = """
    SELECT t.relname AS table_name, c.conname AS name, c.contype::text AS kind,
           array(SELECT a.attname FROM unnest(c.conkey) AS k JOIN pg_attribute a
                 ON a.attrelid = c.conrelid AND a.attnum = k ORDER BY k)::text[] AS columns,
           pg_get_constraintdef(c.oid) AS definition
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = ANY(:schemas) AND c.contype IN ('p', 'u', 'f', 'c')
"""


async def rows(db: AsyncConnection, query: str, *schemas: str) -> list[Any]:
    values = {"schemas": list(schemas)} if schemas else {}
    return list((await db.execute(text(query), values)).all())


def choices(annotation: Any) -> set[str] | None:
    """The texts that a field may hold, if its contract counts them; None (the value) aside."""
    if get_origin(annotation) is Literal:
        return {value for value in get_args(annotation) if isinstance(value, str)}
    for argument in get_args(annotation):
        if found := choices(argument):
            return found
    return None


ENUMS = [
    (entity, name, found)
    for entity in TABLES
    for name, field in entity.model_fields.items()
    if (found := choices(field.annotation))
]


class TestTables:
    async def test_a_foreign_key_leads_an_index(self, db: AsyncConnection) -> None:
        assert await rows(db, FOREIGN_KEYS) == []

    async def test_each_has_id_version_and_times(self, db: AsyncConnection) -> None:
        columns = await rows(db, COLUMNS, *CONTEXTS)
        assert columns
        for table in {row.table_name for row in columns}:
            own = {row.column_name: row for row in columns if row.table_name == table}
            assert own["id"].data_type == ("text" if table in NAMED else "uuid")
            assert own["version"].data_type == "integer"
            for name in ("created_at", "updated_at"):
                assert own[name].data_type == "timestamp with time zone"
            assert {own[n].is_nullable for n in ("id", "version", "created_at")} == {"NO"}

    async def test_times_have_a_zone_and_texts_no_length(self, db: AsyncConnection) -> None:
        odd = {"timestamp without time zone", "character varying", "character", "json"}

        found = [row for row in await rows(db, COLUMNS, *CONTEXTS) if row.data_type in odd]

        assert found == []


class TestConstraints:
    @pytest.mark.parametrize(("entity", "name", "values"), ENUMS)
    async def test_a_counted_text_is_checked_for_the_same_values(
        self, db: AsyncConnection, entity: type[Entity], name: str, values: set[str]
    ) -> None:
        table = TABLES[entity]
        [check] = [
            row
            for row in await rows(db, CONSTRAINTS, str(table.schema))
            if row.name == f"ck_{table.name}__{name}"
        ]
        allowed = set(check.definition.split("'")[1::2])

        # A column may be narrower than the type that it shares (a status to return to).
        assert allowed <= values
        assert allowed == values or name.endswith("_before")

    async def test_each_status_has_a_check(self, db: AsyncConnection) -> None:
        columns = await rows(db, COLUMNS, *CONTEXTS)
        checks = {row.name for row in await rows(db, CONSTRAINTS, *CONTEXTS) if row.kind == "c"}

        for row in columns:
            if row.column_name == "status":
                assert f"ck_{row.table_name.split('.')[1]}__status" in checks

    async def test_names_follow_the_convention(self, db: AsyncConnection) -> None:
        kinds = {"p": "pk", "u": "uq", "f": "fk", "c": "ck"}
        for row in await rows(db, CONSTRAINTS, *CONTEXTS, "bus"):
            if row.table_name == "schema_version" or is_partition(row.table_name):
                continue
            start = f"{kinds[row.kind]}_{row.table_name}"
            assert row.name == start if row.kind == "p" else row.name.startswith(start + "__")
            if row.kind in "uf":
                assert set(row.name.removeprefix(start + "__").split("_")) == {
                    part for column in row.columns for part in column.split("_")
                }


def called(root: Path) -> Iterator[tuple[str, str]]:
    """(file, name) of everything that is called in the modules below."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                yield path.name, function.id if isinstance(function, ast.Name) else name


class TestSources:
    @pytest.mark.parametrize("package", [handlers, persistence])
    def test_nobody_commits_but_the_bus(self, package: Any) -> None:
        ending = {"commit", "rollback", "begin", "begin_nested", "autocommit"}

        found = [(file, name) for file, name in called(_root(package)) if name in ending]

        assert found == []

    def test_handlers_write_no_sql(self) -> None:
        words = {"select", "insert", "update", "delete", "text", "execute", "scalars", "scalar"}

        found = [(file, name) for file, name in called(_root(handlers)) if name in words]

        assert found == []


def _root(package: Any) -> Path:
    return Path(str(package.__file__)).parent
