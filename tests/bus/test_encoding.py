"""What PostgreSQL writes of a row is what its entity is encoded to, byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    Text,
    Uuid,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.items import EncodedItems
from bus.storage.database import Database
from bus.storage.encoding import encoding
from bus.storage.entities import entity_from
from bus.storage.paging import LISTINGS
from bus.storage.rows import recordset
from bus.storage.tables import TABLES
from contracts.planning.tasks import ListTasks, Task
from fleetbus import domain
from tests.bus.asking import Asker, add_tasks, asking

domain.registry()

Strategy = st.SearchStrategy[Any]

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8) | st.just(
    "\"\\/\b\f\n\r\t\x01\x02\x1f\x7f\u00e9\u2028\u2029\ufeff\U0001f600', '"
)
WORDS = TEXTS.map("x{}".format)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e-7, 1e22, 0.1, 1.0])
TIMES = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 120_000, tzinfo=UTC),
    ]
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSONS, max_size=3)
COUNTS = st.integers(0, 2**31 - 1)

KINDS: dict[type, Strategy] = {
    Uuid: st.uuids().map(str),
    Text: TEXTS,
    Integer: st.integers(-(2**31), 2**31 - 1),
    Boolean: st.booleans(),
    DateTime: TIMES.map(datetime.isoformat),
    Date: st.dates().map(date.isoformat),
    Double: FLOATS,
    Numeric: st.decimals(0, 10**9, places=9).map(str)
    | st.sampled_from(["0", "0.000000001", "0E-9", "1.10", "1E+3"]),
    JSONB: JSONS,
}

SUITES = st.none() | st.fixed_dictionaries(
    dict.fromkeys(("total", "passed", "failed"), COUNTS), optional={"results": st.none() | OBJECTS}
)
PARTS: dict[str, Strategy] = {
    "late_results": st.lists(
        st.fixed_dictionaries(
            {
                "attempt": COUNTS,
                "summary": st.none() | TEXTS,
                "result": JSONS,
                "received_at": TIMES.map(datetime.isoformat),
            }
        ),
        max_size=2,
    ),
    "worker_filters": st.fixed_dictionaries(
        {"names": st.none() | st.lists(WORDS, min_size=1, max_size=2)},
        optional={"types": st.none() | st.lists(WORDS, min_size=1, max_size=2)},
    ),
    "connectivity": st.dictionaries(
        st.sampled_from(["orchestrator", "external_api", "database"]),
        st.none() | st.booleans(),
        min_size=1,
    ),
    "tests": st.dictionaries(
        st.sampled_from(["unit", "integration", "performance"]), SUITES, min_size=1
    ),
}
"""What the columns hold that models are made of."""


def fitting(annotation: Any) -> Strategy:
    """JSON of the type that a ``jsonb`` column's field is declared with."""
    if get_origin(annotation) is dict:
        return OBJECTS
    if get_origin(annotation) is list:
        return st.lists(fitting(get_args(annotation)[0]), max_size=2)
    if get_origin(annotation) in {Annotated, Union, UnionType}:
        return fitting(get_args(annotation)[0])
    return TEXTS if annotation is str else JSONS


def values(entity: type[Entity], column: Column[Any]) -> Strategy:
    kind = next(kind for kind in type(column.type).__mro__ if kind in KINDS)
    if column.name in PARTS:
        found = PARTS[column.name]
    elif kind is JSONB:
        found = fitting(entity.model_fields[column.name].annotation)
    else:
        found = KINDS[kind]
    return st.none() | found if column.nullable else found.filter(lambda value: value is not None)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def reading(pool: Database) -> AsyncIterator[AsyncConnection]:
    async with pool.connection(read_only=True) as connection:
        yield connection


@pytest.mark.parametrize("entity", TABLES, ids=lambda entity: entity.__name__)
async def test_a_row_is_written_as_its_entity_is_encoded(
    reading: AsyncConnection, entity: type[Entity]
) -> None:
    loop = asyncio.get_running_loop()
    table, how = TABLES[entity], encoding(entity)
    rows = select(*recordset(table).c).subquery("r")
    item = literal_column(str(how.item).replace(f"{table}.", "r."), Text).label("bus_item")
    both = select(*rows.c, item)
    columns = {column.name: values(entity, column) for column in table.c if not column.computed}

    async def compare(row: dict[str, Any]) -> None:
        [found] = (await reading.execute(both, {"rows": json.dumps([row])})).all()
        assert how.finished(found.bus_item).encode() == entity_from(entity, found).encoded()

    @hypothesis_settings(
        max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.fixed_dictionaries(columns))
    def check(row: dict[str, Any]) -> None:
        asyncio.run_coroutine_threadsafe(compare(row), loop).result(30)

    await asyncio.to_thread(check)


class TestPagesOfTasks:
    @pytest.fixture
    async def ask(self, nats_url: str, service: object) -> AsyncIterator[Asker]:
        assert service
        async with asking(nats_url) as asker:
            yield asker

    async def test_a_page_is_made_of_what_its_items_are_by_themselves(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        ids = await add_tasks(db, 3)
        result = {"b": [1.0, 1e22], "a": "\u2028"}
        await ask("db.tasks.complete", {"id": str(ids[1]), "result": result})

        page = (await ask("db.tasks.list", {"order": "position"})).body
        single = [(await ask("db.tasks.get", {"id": str(id_)})).body for id_ in sorted(ids)]

        assert json.dumps(page["items"]) == json.dumps(single)
        assert result in [item["result"] for item in page["items"]]

    async def test_who_reads_items_gets_entities(
        self, reading: AsyncConnection, db: AsyncConnection
    ) -> None:
        ids = await add_tasks(db, 3)

        page = await LISTINGS[ListTasks].page(reading, ListTasks(order="position", limit=2))

        assert isinstance(page.items, EncodedItems)
        assert [type(item) for item in page.items] == [Task, Task]
        assert [item.id for item in page.items[:]] == sorted(ids)[:2]
        assert page.next_cursor
