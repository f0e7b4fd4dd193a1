"""Pages are complete, without doubles, in order, and a cursor fits only the list it came from."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import OPERATIONS
from fleetbus import domain
from fleetbus.server.service import Service
from tests.bus.asking import Asker, Got, asking
from tests.counting import counting

ROWS = 1_000
LIMIT = 97

LISTED = ("projects", "initiatives", "phases", "tasks")
"""Lists that may be asked for without any filter."""

# Few different values in each column that a list may be ordered by, so that most of them are ties.
FILL = {
    "projects": "(id, name, url, created_at, updated_at) SELECT gen_random_uuid(), "
    "'{batch} ' || n, 'https://example.org/{batch}/' || n, now() + n % 7 * interval '1 s', "
    "now() + n % 5 * interval '1 s'",
    "initiatives": "(id, name, created_at, updated_at) SELECT gen_random_uuid(), "
    "'name ' || n % 3, now() + n % 7 * interval '1 s', now() + n % 5 * interval '1 s'",
    "phases": "(id, initiative_id, name, position, created_at, updated_at) "
    "SELECT gen_random_uuid(), '{initiative}', 'name ' || n % 3, n % 11 - 5, "
    "now() + n % 7 * interval '1 s', now() + n % 5 * interval '1 s'",
    "tasks": "(id, name, position, priority, created_at, updated_at) SELECT gen_random_uuid(), "
    "'name ' || n % 3, n % 11 - 5, CASE n % 3 WHEN 0 THEN 'high' ELSE 'low' END, "
    "now() + n % 7 * interval '1 s', now() + n % 5 * interval '1 s'",
}
INITIATIVE = "0199c0de-0000-7000-8000-000000000001"

domain.registry()
ORDERS = [
    (noun, order)
    for noun in LISTED
    for order in get_args(OPERATIONS[f"db.{noun}.list"].model_fields["order"].annotation)
]


@pytest.fixture
async def ask(service: Service, nats_url: str) -> AsyncIterator[Asker]:
    assert service.client.is_connected
    async with asking(nats_url) as asker:
        yield asker


async def fill(db: AsyncConnection, noun: str, count: int, batch: int = 0) -> None:
    if noun == "phases":
        await db.execute(
            text(
                "INSERT INTO planning.initiatives (id, name) VALUES (:id, 'x') "
                "ON CONFLICT DO NOTHING"
            ),
            {"id": INITIATIVE},
        )
    rows = FILL[noun].format(batch=batch, initiative=INITIATIVE)
    await db.execute(
        text(f"INSERT INTO planning.{noun} {rows} FROM generate_series(1, {count}) AS n")
    )


async def ids_in_order(db: AsyncConnection, noun: str, order: str) -> list[str]:
    direction = "DESC" if order.startswith("-") else "ASC"
    column = order.removeprefix("-")
    query = f"SELECT id FROM planning.{noun} ORDER BY {column} {direction}, id {direction}"
    return [str(id_) for id_ in (await db.execute(text(query))).scalars()]


async def pages(ask: Asker, noun: str, **request: Any) -> AsyncIterator[list[str]]:
    cursor = None
    while True:
        body = request | ({"cursor": cursor} if cursor else {})
        got = await ask(f"db.{noun}.list", {"limit": LIMIT} | body)
        assert got.status == 200, got
        yield [item["id"] for item in got.body["items"]]
        cursor = got.body["next_cursor"]
        if cursor is None:
            return


class TestPages:
    @pytest.mark.parametrize(("noun", "order"), ORDERS)
    async def test_all_rows_once_and_in_order(
        self, ask: Asker, db: AsyncConnection, noun: str, order: str
    ) -> None:
        await fill(db, noun, ROWS)

        seen = [id_ async for page in pages(ask, noun, order=order) for id_ in page]

        assert seen == await ids_in_order(db, noun, order)

    @pytest.mark.parametrize(("noun", "order"), ORDERS)
    async def test_while_rows_are_inserted(
        self, ask: Asker, db: AsyncConnection, noun: str, order: str
    ) -> None:
        """What was there at the start is told once; what comes meanwhile once at most."""
        await fill(db, noun, ROWS)
        there = await ids_in_order(db, noun, order)
        seen = []

        async for page in pages(ask, noun, order=order):
            seen += page
            await fill(db, noun, 11, batch=len(seen))
            if len(seen) > 2 * ROWS:
                break

        assert len(seen) == len(set(seen))
        assert [id_ for id_ in seen if id_ in set(there)] == there

    async def test_a_page_as_long_as_the_list_is_the_last(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        await fill(db, "tasks", 5)

        exact = await ask("db.tasks.list", {"limit": 5})
        short = await ask("db.tasks.list", {"limit": 4})

        assert (len(exact.body["items"]), exact.body["next_cursor"]) == (5, None)
        assert (len(short.body["items"]), short.body["next_cursor"] is None) == (4, False)

    async def test_an_empty_list_is_one_empty_page(self, ask: Asker) -> None:
        assert (await ask("db.tasks.list")).body == {"items": [], "next_cursor": None}

    async def test_a_page_is_one_statement(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        await fill(db, "tasks", 100)
        first = await ask("db.tasks.list", {"limit": 10})

        with counting(service.database) as counted:
            await ask("db.tasks.list", {"limit": 10, "cursor": first.body["next_cursor"]})

        assert counted.total == 1

    @pytest.mark.parametrize("limit", [0, -1, 501, 1.5, "10", None, 10**30])
    async def test_a_limit_out_of_range_is_400(self, ask: Asker, limit: object) -> None:
        got = await ask("db.tasks.list", {"limit": limit})

        assert (got.status, got.body["errors"][0]["field"]) == (400, "limit")


class TestTotal:
    async def test_it_is_there_only_when_asked_for(self, ask: Asker, db: AsyncConnection) -> None:
        await fill(db, "tasks", 30)

        plain = await ask("db.tasks.list", {"limit": 7})
        counted = await ask("db.tasks.list", {"limit": 7, "count": "exact"})
        body = {"limit": 7, "count": "exact", "cursor": counted.body["next_cursor"]}
        second = await ask("db.tasks.list", body)

        assert "total" not in plain.body
        assert (counted.body["total"], second.body["total"]) == (30, 30)

    async def test_it_counts_what_the_filters_leave(self, ask: Asker, db: AsyncConnection) -> None:
        await fill(db, "tasks", 30)

        got = await ask("db.tasks.list", {"limit": 3, "count": "exact", "priority": "high"})

        assert got.body["total"] == 10


def packed(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


ID = "0199c0de-0000-7000-8000-000000000001"
TIME = "2026-01-01T00:00:00Z"
LIST = "db.tasks.list"


class TestForeignCursors:
    @pytest.mark.parametrize(
        "cursor",
        [
            "garbage",
            "x",
            "é",
            "=" * 8,
            "A" * 2_000,
            packed(b"\xff\xfe"),
            packed([]),
            packed({}),
            packed(None),
            packed([LIST, "created_at", TIME]),
            packed([LIST, "created_at", TIME, ID, 1]),
            packed([LIST, "created_at", "tomorrow", ID]),
            packed([LIST, "created_at", 5, ID]),
            packed([LIST, "created_at", None, ID]),
            packed([LIST, "created_at", TIME, "no id"]),
            packed([LIST, "created_at", TIME, 5]),
            packed([LIST, "created_at", TIME, {"a": []}]),
            packed([LIST, "created_at", "0001-01-01T00:00:00+23:59", ID]),
            packed([LIST, "created_at", "9999-12-31T23:59:59-23:59", ID]),
            packed([LIST, "-created_at", TIME, ID]),
            packed([LIST, "position", 1, ID]),
            packed(["db.projects.list", "created_at", TIME, ID]),
            packed([[LIST], "created_at", TIME, ID]),
        ],
    )
    async def test_it_is_refused_by_name(self, ask: Asker, cursor: str) -> None:
        assert_refused(await ask("db.tasks.list", {"cursor": cursor}))

    @pytest.mark.parametrize("value", [2**31, -(2**40), 1.5, True, "1", None, 10**400])
    async def test_a_position_that_is_none_is_refused(self, ask: Asker, value: object) -> None:
        body = {"order": "position", "cursor": packed([LIST, "position", value, ID])}

        assert_refused(await ask("db.tasks.list", body))

    async def test_of_another_order_or_list(self, ask: Asker, db: AsyncConnection) -> None:
        for noun in ("tasks", "initiatives"):
            await fill(db, noun, 5)
        got = await ask("db.tasks.list", {"limit": 2})
        cursor = got.body["next_cursor"]

        assert_refused(await ask("db.tasks.list", {"cursor": cursor, "order": "-created_at"}))
        assert_refused(await ask("db.initiatives.list", {"cursor": cursor}))

    async def test_each_changed_character_is_harmless(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        await fill(db, "tasks", 5)
        cursor = (await ask("db.tasks.list", {"limit": 2})).body["next_cursor"]

        for place in range(len(cursor)):
            changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
            got = await ask("db.tasks.list", {"limit": 2, "cursor": changed})
            assert got.status in {200, 400}


def assert_refused(got: Got) -> None:
    assert (got.status, got.type) == (400, "invalid_request"), got
    assert [error["field"] for error in got.body["errors"]] == ["cursor"]
