"""A reference is asked for when a transaction ends: what it misses is a 422 there, too."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running import failures
from bus.storage import lets_go
from tests.bus.asking import RUN, Asker, assert_problem, count_of, eventually, waiting_for_locks
from tests.servers import connection_to

SHELF, BOOK = "public.shelves", "public.books"


@pytest.fixture(autouse=True)
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Books that stand on shelves; a shelf may go."""
    tables = MetaData(naming_convention={"fk": "fk_%(table_name)s__%(column_0_N_name)s"})
    own = [Column("id", Integer), PrimaryKeyConstraint("id", name="pk_shelves")]
    Table("shelves", tables, *own, schema="public", info={"noun": "shelf"})
    own = [Column("id", Integer), PrimaryKeyConstraint("id", name="pk_books")]
    reference: Column[int] = Column("shelf_id", lets_go("public.shelves"))
    books = Table("books", tables, *own, reference, schema="public")
    await db.run_sync(tables.create_all)
    monkeypatch.setattr(failures, "Row", books)
    yield
    await db.run_sync(tables.drop_all)


def shelf(id_: int) -> str:
    return f"INSERT INTO {SHELF} VALUES ({id_})"


def book(id_: int, on: int) -> str:
    return f"INSERT INTO {BOOK} VALUES ({id_}, {on})"


class TestReferences:
    @pytest.mark.parametrize("how", [{}, {"key": "k"}, {"dry_run": True}])
    async def test_what_is_not_there_is_422_and_leaves_nothing(
        self, ask: Asker, db: AsyncConnection, how: dict[str, Any]
    ) -> None:
        for _ in range(2):
            got = await ask(RUN, {"sql": [shelf(1), book(1, on=7)]}, **how)

            assert_problem(got, 422, "invalid_reference")
            assert (got.body["field"], got.body["entity"]) == ("shelf_id", "shelf")
            assert (await count_of(db, SHELF), await count_of(db, BOOK)) == (0, 0)

    async def test_what_is_there_in_the_end_is_enough(self, ask: Asker) -> None:
        sql = {"sql": [book(1, on=1), shelf(1)]}
        assert (await ask(RUN, sql, dry_run=True)).status == 200
        assert (await ask(RUN, sql)).status == 200

    async def test_what_is_let_go_of_may_go(self, ask: Asker, db: AsyncConnection) -> None:
        await ask(RUN, {"sql": [shelf(1), book(1, on=1)]})
        gone = f"DELETE FROM {SHELF}"

        assert_problem(await ask(RUN, {"sql": [gone]}), 422, "invalid_reference")
        let_go = f"UPDATE {BOOK} SET shelf_id = NULL"
        assert (await ask(RUN, {"sql": [gone, let_go]})).status == 200
        assert (await count_of(db, SHELF), await count_of(db, BOOK)) == (0, 1)

    async def test_one_that_goes_meanwhile_is_waited_for(
        self, ask: Asker, db: AsyncConnection, database_url: str
    ) -> None:
        await ask(RUN, {"sql": [shelf(1)]})
        async with connection_to(database_url) as other:
            await other.exec_driver_sql("BEGIN")
            await other.exec_driver_sql(f"DELETE FROM {SHELF}")
            asked = asyncio.create_task(ask(RUN, {"sql": [book(1, on=1)]}))
            await eventually(lambda: waiting_for_locks(db))

            await other.exec_driver_sql("COMMIT")

        assert_problem(await asked, 422, "invalid_reference")
        assert await count_of(db, BOOK) == 0
