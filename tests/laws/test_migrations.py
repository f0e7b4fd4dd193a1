"""Migrations: they lead to the tables that are declared, and what was released does not change."""

import re
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.discovery import is_partition, metadata
from fleetbus.server import migrate
from fleetbus.server.schema import head, older
from migrations import draft, release

METADATA = metadata("persistence")
SCHEMAS = sorted({str(table.schema) for table in METADATA.tables.values()})

CATALOGUE = """
    SELECT 'constraint' AS kind, t.relname AS table_name, c.conname AS name,
           pg_get_constraintdef(c.oid) AS definition
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = ANY(:schemas) AND c.contype <> 'n'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = ANY(:schemas)
"""


async def rows(db: AsyncConnection, query: str) -> list[Any]:
    return list((await db.execute(text(query), {"schemas": SCHEMAS})).all())


async def catalogue(db: AsyncConnection) -> dict[str, str]:
    """Every constraint and index, as the database writes it; parts of larger tables aside."""
    found = await rows(db, CATALOGUE)
    assert {row.kind for row in found} == {"constraint", "index"}
    return {
        f"{row.table_name}.{row.name}": row.definition
        for row in found
        if row.table_name != "schema_version" and not is_partition(row.table_name)
    }


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_name": lambda name, kind, _: (
                name in SCHEMAS
                if kind == "schema"
                else not (kind == "table" and is_partition(name))
            ),
            "version_table": "schema_version",
            "version_table_schema": "bus",
            "compare_type": True,
            "compare_server_default": True,
        },
    )
    return list(compare_metadata(context, METADATA))


class TestMigrations:
    def test_the_revisions_are_those_that_alembic_knows(self) -> None:
        scripts = ScriptDirectory.from_config(migrate.config())
        assert head() == scripts.get_current_head()
        revisions = {script.revision for script in scripts.walk_revisions()}
        assert older() == revisions - {head()}

    async def test_they_lead_to_the_tables_that_are_declared(self, db: AsyncConnection) -> None:
        assert await db.run_sync(differences) == []

    async def test_what_alembic_does_not_compare_is_as_declared(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        migrated = await catalogue(db)
        await migrate.downgrade(database_url, "base")
        await db.execute(text("DROP SCHEMA bus CASCADE"))
        for schema in SCHEMAS:
            await db.execute(text(f"CREATE SCHEMA {schema}"))

        await db.run_sync(METADATA.create_all)

        assert migrated == await catalogue(db)

    async def test_down_and_up_again(self, database_url: str, db: AsyncConnection) -> None:
        assert await migrate.downgrade(database_url, "base") == "base"
        left = "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY(:schemas)"
        assert [row[0] for row in await rows(db, left)] == ["schema_version"]

        assert await migrate.upgrade(database_url) == migrate.head()

        assert await db.run_sync(differences) == []

    async def test_an_upgrade_of_what_is_up_to_date_does_nothing(self, database_url: str) -> None:
        assert await migrate.upgrade(database_url) == migrate.head()


class TestDraft:
    async def test_what_is_missing_is_added(
        self, database_url: str, db: AsyncConnection, tmp_path: Path
    ) -> None:
        await db.execute(text("ALTER TABLE planning.projects DROP COLUMN description"))
        await db.execute(text("ALTER TABLE health.schedules DROP CONSTRAINT uq_schedules__name"))
        await db.execute(text("DROP INDEX health.ix_schedules__next_due_at"))
        assert len(await db.run_sync(differences)) == 3

        path = await draft.draft(database_url, "bring_it_back", tmp_path)

        assert path.name == f"{int(migrate.head()) + 1:04}_bring_it_back.py"
        assert path.read_text().startswith('"""Bring it back."""\n')
        await db.run_sync(lambda sync: command.upgrade(draft.config(sync, tmp_path), "heads"))
        assert await db.run_sync(differences) == []
        await db.run_sync(
            lambda sync: command.downgrade(draft.config(sync, tmp_path), migrate.head())
        )
        assert len(await db.run_sync(differences)) == 3

    async def test_nothing_is_missing(self, database_url: str, tmp_path: Path) -> None:
        path = await draft.draft(database_url, "move_some_rows", tmp_path)
        assert path.read_text().count("    pass\n") == 2

    @pytest.mark.parametrize("name", ["", "Move rows", "../rows", "move-rows"])
    async def test_the_name_is_words(self, database_url: str, name: str) -> None:
        with pytest.raises(ValueError, match="is not words"):
            await draft.draft(database_url, name)


class TestReleased:
    @pytest.fixture
    def versions(self, tmp_path: Path) -> Path:
        (tmp_path / "released.txt").touch()
        for name in ("0001_a.py", "0002_b.py"):
            (tmp_path / name).write_text(name)
        release.release(tmp_path, tmp_path / "released.txt")
        return tmp_path

    def test_what_was_released_has_not_changed(self) -> None:
        assert release.released().keys() >= {"0001_bus.py", "0010_reported_times.py"}
        release.check()

    def test_none_depends_on_code_that_changes(self) -> None:
        source = "".join(path.read_text() for path in release.VERSIONS.glob("[0-9]*.py"))
        ours = re.compile(r"^\s*(?:from|import) (?:bus|contracts|persistence|handlers|fleetbus)\b")
        assert [line for line in source.splitlines() if ours.match(line)] == []

    def test_one_that_is_new_may_be_there(self, versions: Path) -> None:
        (versions / "0003_c.py").write_text("c")
        release.check(versions, versions / "released.txt")
        (versions / "0003_c.py").write_text("and may change")
        release.release(versions, versions / "released.txt")
        assert list(release.released(versions / "released.txt")) == [
            "0001_a.py",
            "0002_b.py",
            "0003_c.py",
        ]

    def test_one_that_was_released_may_not_change(self, versions: Path) -> None:
        (versions / "0002_b.py").write_text("b!")
        with pytest.raises(release.MigrationChanged, match="has been changed"):
            release.release(versions, versions / "released.txt")

    def test_one_that_was_released_may_not_go(self, versions: Path) -> None:
        (versions / "0002_b.py").rename(versions / "0002_c.py")
        with pytest.raises(release.MigrationChanged, match="is gone"):
            release.check(versions, versions / "released.txt")

    def test_a_new_one_comes_last(self, versions: Path) -> None:
        (versions / "0001_before.py").write_text("too late")
        with pytest.raises(release.MigrationChanged, match="must come after"):
            release.check(versions, versions / "released.txt")
