"""Rows beside a decision: in the statement that writes the change, or not at all."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.running.registry import Registry
from fleetbus import domain
from tests.bus.asking import Asker, assert_problem, count_of
from tests.bus.doors.binding import make_doors, with_doors
from tests.bus.doors.persistence.doors.tables import Visit
from tests.bus.together import assert_of, execute
from tests.counting import Counted
from tests.kit.outbox import Outbox

Statements = Callable[[], AbstractContextManager[Counted]]

KNOCK, CALL = "db.doors.knock", "db.doors.call"


@pytest.fixture(scope="session")
def registry() -> Registry:
    return with_doors(domain.registry())


@pytest_asyncio.fixture(autouse=True)
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_doors(db, monkeypatch)


async def door(ask: Asker) -> str:
    return str((await ask("db.doors.create")).body["id"])


async def visits(db: AsyncConnection, door: str) -> list[tuple[int, str]]:
    query = "SELECT number, who FROM doors.visits WHERE door_id = :id ORDER BY number"
    rows = await db.execute(text(query), {"id": door})
    return [(row.number, row.who) for row in rows]


class TestDecider:
    async def test_a_row_as_it_was_given(self, ask: Asker, db: AsyncConnection) -> None:
        """A text, a time, JSON and bytes; the id is its own, the rest as of a first version."""
        made = await ask("db.doors.create")

        row = (await db.execute(text("SELECT * FROM doors.visits"))).one()

        assert str(row.door_id) == made.body["id"]
        assert (row.version, row.number, row.who) == (1, 0, "builder")
        assert row.at == row.created_at == row.updated_at
        assert row.at == datetime.fromisoformat(made.body["created_at"])
        assert row.details == {"who": "builder"}
        assert row.print == hashlib.sha256(b"builder").digest()

    async def test_it_costs_no_statement(self, ask: Asker, statements: Statements) -> None:
        id_ = await door(ask)

        with statements() as counted:
            assert (await ask(KNOCK, {"id": id_}, key="k")).status == 200

        assert counted.total == 2, "one that reads, one that writes"

    async def test_a_batch_writes_all_of_them_at_once(
        self, ask: Asker, db: AsyncConnection, statements: Statements
    ) -> None:
        ids = [await door(ask) for _ in range(5)]

        with statements() as counted:
            got = await asyncio.gather(*(ask(KNOCK, {"id": id_, "who": id_}) for id_ in ids))

        assert {one.status for one in got} == {200}
        inserts = [statement for statement in counted.texts if "INSERT INTO doors" in statement]
        assert len(inserts) == counted.total / 2 <= 2
        assert [await visits(db, id_) for id_ in ids] == [[(0, "builder"), (1, id_)] for id_ in ids]

    async def test_change_row_and_event_are_one_transaction(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        id_ = await door(ask)
        await ask(KNOCK, {"id": id_}, key="k")

        writers = """
            SELECT xmin::text FROM doors.doors UNION
            SELECT xmin::text FROM doors.visits WHERE number = 1 UNION
            SELECT xmin::text FROM bus.outbox UNION SELECT xmin::text FROM bus.requests
        """
        assert len((await db.execute(text(writers))).all()) == 1

    async def test_what_follows_sees_it(
        self, ask: Asker, outbox: Outbox, statements: Statements
    ) -> None:
        """A reaction that reads comes after what is written, which waits for none that does not."""
        id_ = await door(ask)
        await ask(KNOCK, {"id": id_, "who": "dog"})

        with statements() as counted:
            await ask(KNOCK, {"id": id_})

        assert counted.total == 4
        told = [(row.type, row.data.get("visits")) for row in await outbox.all()]
        assert told == [("door.knocked", None), ("door.knocked", None), ("door.barked_at", 3)]

    async def test_a_repetition_adds_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        id_ = await door(ask)

        first, second = [await ask(KNOCK, {"id": id_}, key="k") for _ in range(2)]

        assert (second.data, second.replayed) == (first.data, True)
        assert await visits(db, id_) == [(0, "builder"), (1, "me")]

    async def test_a_refusal_that_keeps_the_change_keeps_the_row(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await door(ask)

        got = await ask(KNOCK, {"id": id_, "how": "refuse_and_keep"})

        assert_problem(got, 409, "nobody_in")
        assert await visits(db, id_) == [(0, "builder"), (1, "me")]
        assert await outbox.types() == ["door.knocked"]

    @pytest.mark.parametrize(
        ("how", "status", "kind"),
        [
            ("refuse", 409, "nobody_in"),
            ("refuse_undeclared", 500, "internal_error"),
            ("violate", 422, "constraint_violated"),
            ("twice", 500, "internal_error"),
            ("too_large", 413, "entity_too_large"),
            ("too_large_and_keep", 409, "nobody_in"),
            ("raise", 500, "internal_error"),
        ],
    )
    async def test_what_fails_leaves_neither_change_nor_row(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, how: str, status: int, kind: str
    ) -> None:
        """Whatever the others of its batch do."""
        ids = [await door(ask) for _ in range(3)]
        bodies = [{"id": id_, "how": how if id_ == ids[1] else "open"} for id_ in ids]

        one, got, other = await asyncio.gather(*(ask(KNOCK, body) for body in bodies))

        assert (one.status, other.status) == (200, 200)
        assert_problem(got, status, kind)
        assert [len(await visits(db, id_)) for id_ in ids] == [2, 1, 2]
        assert [row.entity_id for row in await outbox.all()] != []
        assert ids[1] not in {row.entity_id for row in await outbox.all()}
        assert (await ask(KNOCK, {"id": ids[1]})).body["knocks"] == 1

    async def test_it_is_measured_as_a_row(self, ask: Asker) -> None:
        id_ = await door(ask)

        got = await ask(KNOCK, {"id": id_, "how": "too_large"})

        assert (got.body["entity"], got.body["limit"]) == ("visit", 1024 * 1024 - 36 * 1024)
        assert got.body["bytes"] > 2_200_000, "it holds the text twice"

    async def test_what_is_vital_is_done_without_it(self, ask: Asker, db: AsyncConnection) -> None:
        """As a heartbeat with too much progress is: refused, and heard."""
        id_ = await door(ask)

        got = await ask("db.doors.ring", {"id": id_, "who": "x" * 600_000})

        assert_problem(got, 413, "entity_too_large")
        assert await visits(db, id_) == [(0, "builder"), (1, "bell")]

    async def test_a_dry_run_leaves_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        id_ = await door(ask)

        got = await ask(KNOCK, {"id": id_}, dry_run=True)
        refused = await ask(KNOCK, {"id": id_, "how": "violate"}, dry_run=True)

        assert (got.status, got.body["knocks"]) == (200, 1)
        assert_problem(refused, 422, "constraint_violated")
        assert await visits(db, id_) == [(0, "builder")]


class TestHandler:
    async def test_carried_out_with_the_changes(
        self, ask: Asker, db: AsyncConnection, statements: Statements
    ) -> None:
        ids = [await door(ask) for _ in range(3)]

        with statements() as counted:
            got = await ask(CALL, {"ids": ids, "who": "post"})

        assert got.status == 200, got.body
        assert counted.total == 4, "the clock, the locks, all that is written, the events"
        assert [await visits(db, id_) for id_ in ids] == [[(0, "builder"), (1, "post")]] * 3

    async def test_what_the_database_refuses_leaves_nothing(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        id_ = await door(ask)

        got = await ask(CALL, {"ids": [id_], "who": "nobody"})

        assert_problem(got, 422, "constraint_violated")
        assert await visits(db, id_) == [(0, "builder")]

    async def test_what_is_too_large_leaves_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        id_ = await door(ask)

        got = await ask(CALL, {"ids": [id_], "who": "x" * 600_000})

        assert_problem(got, 413, "entity_too_large")
        assert await visits(db, id_) == [(0, "builder")]


class TestTogether:
    async def test_each_is_written_with_its_change(self, ask: Asker, db: AsyncConnection) -> None:
        new = str(uuid7())

        got = await execute(
            ask, ("db.doors.create", {"id": new}), (KNOCK, {"id": new}), (CALL, {"ids": [new]})
        )

        assert [reply["knocks"] for reply in got.body["replies"]] == [0, 1, 2]
        assert await visits(db, new) == [(0, "builder"), (1, "me"), (2, "me")]

    async def test_none_stays_where_one_fails(self, ask: Asker, db: AsyncConnection) -> None:
        id_ = await door(ask)
        refused = (KNOCK, {"id": id_, "how": "refuse_and_keep"})

        got = await execute(ask, (KNOCK, {"id": id_}), refused)

        assert_of(got, 409, "nobody_in", 1, KNOCK)
        assert await count_of(db, "doors.visits") == 1


class TestFirst:
    def test_a_value_for_each_column_and_no_other(self) -> None:
        values: dict[str, Any] = {"door_id": uuid7(), "number": 1, "who": "me", "details": None}
        now = datetime.now(UTC)
        with pytest.raises(TypeError, match=r"Visit\.first needs at, print_"):
            Visit.first(now=now, **values)
        with pytest.raises(TypeError, match=r"Visit\.first takes no colour"):
            Visit.first(now=now, **values, at=now, print_=None, colour="red")

    def test_it_shows_no_value(self) -> None:
        values: dict[str, Any] = {"number": 1, "who": "secret", "details": None, "print_": None}
        visit = Visit.first(now=(now := datetime.now(UTC)), door_id=uuid7(), at=now, **values)
        assert (visit.who, visit.version, visit.at) == ("secret", 1, now)
        assert "secret" not in repr(visit)
