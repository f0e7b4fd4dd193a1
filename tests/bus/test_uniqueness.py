"""What must be unique, by a constraint or by an index of any kind, is a 409 wherever it fails."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running import failures
from tests.bus.asking import RUN, Asker, assert_problem, count_of

LABELS = "public.labels"


def labels() -> Table:
    """A table with everything that a unique index can be."""
    name, owner, code = Column("name", Text), Column("owner", Text), Column("code", Text)
    email, current = Column("email", Text), Column("current", Boolean)
    return Table(
        "labels",
        MetaData(),
        *(Column("id", Integer), name, owner, code, email, current),
        Column("place", Integer),
        PrimaryKeyConstraint("id", name="pk_labels"),
        UniqueConstraint("name", name="uq_labels__name"),
        UniqueConstraint("place", name="uq_labels__place", deferrable=True, initially="DEFERRED"),
        Index("uq_labels__owner", owner, unique=True, postgresql_where=current),
        Index("uq_labels__owner_code", func.coalesce(owner, ""), func.lower(code), unique=True),
        Index("uq_labels__email", text("lower(email)"), unique=True),
        Index("ix_labels__code", code),
        schema="public",
        info={"noun": "label"},
    )


@pytest.fixture
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Table]:
    table = labels()
    await db.run_sync(table.metadata.create_all)
    monkeypatch.setattr(failures, "Row", table)
    yield table
    await db.run_sync(table.metadata.drop_all)


@pytest.mark.usefixtures("made")
class TestUniqueness:
    @pytest.mark.parametrize(
        ("first", "second", "fields"),
        [
            ({"id": "1"}, {"id": "1"}, "id"),
            ({"name": "'a'"}, {"name": "'a'"}, "name"),
            ({"owner": "'a'", "current": "true"}, {"owner": "'a'", "current": "true"}, "owner"),
            ({"code": "'a'"}, {"code": "'A'"}, "owner and code"),
            ({"email": "'a@b'"}, {"email": "'A@B'"}, "email"),
            ({"place": "1"}, {"place": "1"}, "place"),
        ],
        ids=["primary key", "constraint", "partial", "functional", "as text", "at COMMIT"],
    )
    async def test_what_is_there_already_is_409(
        self,
        ask: Asker,
        db: AsyncConnection,
        first: dict[str, str],
        second: dict[str, str],
        fields: str,
    ) -> None:
        assert (await ask(RUN, {"sql": [insert(1, first)]})).status == 200

        got = await ask(RUN, {"sql": [insert(2, second)]})

        assert_problem(got, 409, "already_exists")
        assert (got.body["entity"], got.body["fields"]) == ("label", fields)
        assert await count_of(db, LABELS) == 1
        assert (await ask(RUN, {"sql": [insert(3, {})]})).status == 200

    async def test_what_a_partial_index_leaves_out_may_be_there_twice(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        for number in (1, 2):
            values = {"owner": "'a'", "current": "false", "code": f"'{number}'"}
            assert (await ask(RUN, {"sql": [insert(number, values)]})).status == 200
        assert await count_of(db, LABELS) == 2


def insert(number: int, values: dict[str, str]) -> str:
    row = {"id": str(number), **values}
    return f"INSERT INTO {LABELS} ({', '.join(row)}) VALUES ({', '.join(row.values())})"
