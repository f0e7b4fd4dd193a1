"""Refusals by which something is kept: a wrong guess is counted, however it is asked."""

import asyncio
import base64
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from fleetbus import domain
from fleetbus.server.config import Settings
from tests.bus.asking import Asker, Got, assert_problem, count_of
from tests.bus.doors.binding import make_doors, with_doors
from tests.bus.together import assert_of, execute
from tests.kit.outbox import Outbox

TRY, TOGETHER, OPEN = "db.doors.try", "db.doors.try_together", "db.doors.open"
BOTH = pytest.mark.parametrize("subject", [TRY, TOGETHER], ids=["handler", "gathered"])


@pytest.fixture(scope="session")
def registry() -> Registry:
    return with_doors(domain.registry())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    key = base64.b64encode(bytes(32)).decode()
    return settings.model_copy(update={"credentials_keys": f"k:{key}"})


@pytest_asyncio.fixture(autouse=True)
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_doors(db, monkeypatch)


async def door(ask: Asker) -> str:
    return str((await ask("db.doors.create")).body["id"])


async def wrong(db: AsyncConnection, door: str) -> int:
    query = text("SELECT wrong FROM doors.doors WHERE id = :id")
    return int((await db.execute(query, {"id": door})).scalar_one())


def assert_counted(got: Got, *, counted: str = "and counted") -> None:
    assert_problem(got, 401, "code_wrong")
    assert got.body["counted"] == counted


class TestKept:
    @BOTH
    async def test_the_change_and_its_event(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        id_ = await door(ask)

        got = await ask(subject, {"id": id_, "code": "0"})

        assert_counted(got)
        assert await wrong(db, id_) == 1
        [told] = await outbox.all()
        assert (told.type, told.data["door"]["wrong"]) == ("door.tried", 1)
        assert got.position == str(told.position)

    @BOTH
    async def test_a_repetition_is_not_counted(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        id_ = await door(ask)

        first, again = [await ask(subject, {"id": id_, "code": "0"}, key="k") for _ in range(2)]

        assert_counted(again)
        assert (again.data, again.replayed, again.position) == (first.data, True, first.position)
        assert await wrong(db, id_) == 1
        assert [row.cause for row in await outbox.all()] == ["k"]

    @BOTH
    async def test_of_repetitions_at_once_one_is_counted(
        self, ask: Asker, db: AsyncConnection, subject: str
    ) -> None:
        id_ = await door(ask)

        got = await asyncio.gather(
            *(ask(subject, {"id": id_, "code": "0"}, key="k") for _ in range(6))
        )

        assert {one.data for one in got} == {got[0].data}
        assert [one.replayed for one in got].count(False) == 1
        assert await wrong(db, id_) == 1

    @BOTH
    async def test_of_those_at_once_each_is_counted(
        self, ask: Asker, db: AsyncConnection, subject: str
    ) -> None:
        ids = [await door(ask) for _ in range(2)]
        bodies = [{"id": ids[n % 2], "code": "1234" if n == 4 else "0"} for n in range(9)]

        got = await asyncio.gather(*(ask(subject, body) for body in bodies))

        assert [one.status for one in got] == [200 if n == 4 else 401 for n in range(9)]
        assert [await wrong(db, id_) for id_ in ids] == [4, 4]

    @BOTH
    async def test_a_refusal_alone_keeps_nothing(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        id_ = await door(ask)

        got = await ask(subject, {"id": id_, "code": "0", "then": "refuse"}, key="k")

        assert_problem(got, 409, "nobody_in")
        assert (await wrong(db, id_), await outbox.all()) == (0, [])
        assert await count_of(db, "bus.requests") == 0

    @BOTH
    async def test_one_that_is_not_declared_is_a_bug_and_keeps_nothing(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        """Also beside others, which are answered as if they were alone."""
        ids = [await door(ask) for _ in range(3)]
        bodies = [{"id": id_, "code": "0"} for id_ in ids]
        bodies[1]["then"] = "undeclared"

        one, got, other = await asyncio.gather(*(ask(subject, body) for body in bodies))

        assert_problem(got, 500, "internal_error")
        assert [one.status, other.status] == [401, 401]
        assert [await wrong(db, id_) for id_ in ids] == [1, 0, 1]
        assert await outbox.count() == 2

    @BOTH
    async def test_of_a_dry_run_nothing_stays(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        id_ = await door(ask)

        got = await ask(subject, {"id": id_, "code": "0"}, dry_run=True, key="k")

        assert_counted(got)
        assert got.position is None
        assert (await wrong(db, id_), await outbox.all()) == (0, [])
        assert await count_of(db, "bus.requests") == 0

    @BOTH
    async def test_with_others_in_one_transaction_it_keeps_nothing_and_does_not_say_so(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, subject: str
    ) -> None:
        id_ = await door(ask)
        right = (subject, {"id": id_, "code": "1234"})

        good = await execute(ask, right, ("db.doors.knock", {"id": id_}))
        got = await execute(ask, right, (subject, {"id": id_, "code": "0"}))

        assert good.status == 200
        assert_of(got, 401, "code_wrong", 1, subject)
        assert got.body["counted"] == "and forgotten"
        assert await wrong(db, id_) == 0
        assert await outbox.types() == ["door.knocked"]


class TestJudges:
    async def test_a_guess_is_counted(self, ask: Asker, db: AsyncConnection) -> None:
        id_ = await door(ask)

        first, again = [await ask(OPEN, {"id": id_, "code": "0"}, key="k") for _ in range(2)]

        assert_counted(first)
        assert (again.data, again.replayed) == (first.data, True)
        assert (await ask(OPEN, {"id": id_, "code": "1234"})).status == 200
        assert await wrong(db, id_) == 1

    @pytest.mark.parametrize("code", ["0", "1234"])
    async def test_it_is_no_dry_run(self, ask: Asker, db: AsyncConnection, code: str) -> None:
        id_ = await door(ask)

        got = await ask(OPEN, {"id": id_, "code": code}, dry_run=True)

        assert_problem(got, 400, "dry_run_refused")
        assert await wrong(db, id_) == 0

    async def test_a_dry_run_that_is_none_is_done(self, ask: Asker) -> None:
        headers = {"Fleet-Dry-Run": "false"}

        got = await ask(OPEN, {"id": await door(ask), "code": "1234"}, headers=headers)

        assert got.status == 200

    @pytest.mark.parametrize("dry_run", [False, True])
    async def test_it_stands_in_no_transaction(
        self, ask: Asker, db: AsyncConnection, dry_run: bool
    ) -> None:
        id_ = await door(ask)
        steps = ("db.doors.knock", {"id": id_}), (OPEN, {"id": id_, "code": "0"})

        got = await execute(ask, *steps, dry_run=dry_run)

        assert_of(got, 400, "not_transactional", 1, OPEN)
        assert "judges a guess" in got.body["detail"]
        assert await wrong(db, id_) == 0


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["0", "1234"]),
        st.sampled_from(["keep", "keep", "refuse", "undeclared"]),
        st.none() | st.integers(0, 2),
    ),
    min_size=2,
    max_size=8,
)


class TestHistories:
    async def test_gathered_and_one_by_one_agree(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        """The same answers, counts and events, whoever else asks at the same time."""
        loop = asyncio.get_running_loop()
        runs = iter(range(1_000_000))

        async def agree(history: list[tuple[int, str, str, int | None]]) -> None:
            found: list[Any] = []
            for subject in (TRY, TOGETHER):
                before, run = await outbox.count(), next(runs)
                doors = [await door(ask) for _ in range(3)]
                asked = [
                    ask(
                        subject,
                        {"id": doors[number], "code": code, "then": then},
                        key=None if key is None else f"{run}-{number}-{code}-{then}-{key}",
                    )
                    for number, code, then, key in history
                ]
                if subject == TOGETHER:
                    got = await asyncio.gather(*asked)
                else:
                    got = [await one for one in asked]
                told = [doors.index(row.entity_id) for row in (await outbox.all())[before:]]
                answers = [(one.status, one.type, one.replayed) for one in got]
                found.append(
                    (sorted(answers), [await wrong(db, id_) for id_ in doors], sorted(told))
                )
            assert found[0] == found[1]

        @examples(
            max_examples=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STEPS)
        def check(history: list[tuple[int, str, str, int | None]]) -> None:
            asyncio.run_coroutine_threadsafe(agree(history), loop).result(30)

        await asyncio.to_thread(check)
