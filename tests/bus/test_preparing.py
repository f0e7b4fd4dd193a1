"""What a command needs done before its transaction holds nobody else up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling.preparing import Slow
from bus.running.hashing import WAITING_PER_THREAD, Hashing
from bus.running.registry import Registry
from fleetbus import domain
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import (
    RUN,
    Asker,
    Got,
    add_tasks,
    assert_problem,
    column_of,
    count_of,
    eventually,
)
from tests.bus.preparations import (
    GATE,
    LOOK,
    NOTE_HASH,
    OPEN,
    OPEN_ALL,
    digest_of,
    with_preparations,
)
from tests.bus.probes import with_probes
from tests.bus.together import assert_of, execute

THREADS = 2
PLACES = THREADS * (1 + WAITING_PER_THREAD)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return with_preparations(with_probes(domain.registry()))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"hashing": THREADS, "pool_write": 2, "pool_read": 2})


@pytest.fixture(autouse=True)
def _gate() -> Iterator[None]:
    GATE.opened.set()
    GATE.begun = GATE.prepared = 0
    yield
    GATE.opened.set()


def hashing_of(service: Service) -> Hashing:
    return service.dispatcher._executor._preparing.hashing


@asynccontextmanager
async def held(
    ask: Asker, service: Service, count: int, subject: str = OPEN
) -> AsyncIterator[list[asyncio.Task[Got]]]:
    """So many calls of which none gets on: two are in their threads, the others wait for one."""
    GATE.opened.clear()
    hashing = hashing_of(service)
    calls = [asyncio.create_task(ask(subject, {"secret": str(n)}, within=30)) for n in range(count)]
    try:
        await eventually(
            lambda: GATE.prepared == hashing.admitted == count and hashing.working == THREADS
        )
        yield calls
    finally:
        GATE.opened.set()
        await asyncio.gather(*calls)


class TestPrepared:
    @pytest.mark.parametrize("subject", [OPEN, OPEN_ALL])
    async def test_it_is_handed_over(self, ask: Asker, subject: str) -> None:
        got = await ask(subject, {"secret": "s"})

        assert got.status == 200, got
        assert got.body["digest"] == digest_of("s")
        assert got.body["thread"].startswith("hashing")
        assert got.body["read_only"] == "on"

    async def test_to_a_decider(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        assert (await ask(NOTE_HASH, {"id": str(task), "secret": "s"})).status == 200

        assert await column_of(db, "summary", task) == digest_of("s")

    @pytest.mark.parametrize("subject", [OPEN, OPEN_ALL])
    async def test_each_of_many_gets_its_own(
        self, ask: Asker, service: Service, subject: str
    ) -> None:
        async with held(ask, service, 12, subject) as calls:
            pass

        digests = [(await call).body["digest"] for call in calls]
        assert digests == [digest_of(str(n)) for n in range(12)]

    async def test_each_of_many_decided_gets_its_own(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 12)

        got = await asyncio.gather(
            *(ask(NOTE_HASH, {"id": str(task), "secret": str(task)}) for task in tasks)
        )

        assert [one.body["summary"] for one in got] == [digest_of(str(task)) for task in tasks]

    async def test_without_slow_work_it_is_read_before(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        await add_tasks(db, 3)

        got = await ask(LOOK)

        assert (got.body["digest"], got.body["read_only"]) == ("3", "before")

    async def test_a_dry_run_leaves_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        assert (await ask(OPEN, {"secret": "s"}, dry_run=True)).body["digest"] == digest_of("s")

        assert await count_of(db, "bus.sweeps") == 0


class TestRefused:
    @pytest.mark.parametrize("then", ["refuse", "refuse_slowly"])
    @pytest.mark.parametrize("subject", [OPEN, OPEN_ALL])
    async def test_by_the_preparation(self, ask: Asker, subject: str, then: str) -> None:
        got = await ask(subject, {"secret": "s", "then": then})

        assert_problem(got, 409, "probe_refused")

    @pytest.mark.parametrize("then", ["raise", "raise_slowly", "write"])
    async def test_a_bug_is_a_bug(self, ask: Asker, db: AsyncConnection, then: str) -> None:
        got = await ask(OPEN, {"secret": "s", "then": then})

        assert_problem(got, 500, "internal_error")
        assert await count_of(db, "bus.sweeps") == 0
        assert (await ask(OPEN, {"secret": "s"})).status == 200


class TestRepeated:
    async def test_it_is_not_prepared_again(self, ask: Asker) -> None:
        first, second = [await ask(OPEN, {"secret": "s"}, key="k") for _ in range(2)]

        assert (first.data, second.replayed) == (second.data, True)
        assert (GATE.prepared, GATE.begun) == (1, 1)

    async def test_two_at_once_are_done_once(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        GATE.opened.clear()
        both = [asyncio.create_task(ask(OPEN, {"secret": "s"}, key="k")) for _ in range(2)]
        await eventually(lambda: hashing_of(service).working == 2)
        GATE.opened.set()

        one, other = [await call for call in both]

        assert one.data == other.data
        assert {one.replayed, other.replayed} == {True, False}
        assert await count_of(db, "bus.sweeps") == 1

    async def test_another_body_is_refused_unprepared(self, ask: Asker) -> None:
        await ask(OPEN, {"secret": "s"}, key="k")

        got = await ask(OPEN, {"secret": "other", "then": "raise"}, key="k")

        assert_problem(got, 409, "idempotency_key_reused")


class TestWaiting:
    async def test_it_holds_no_connection(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        async with held(ask, service, 20):
            await eventually(lambda: not any(u.in_use for u in service.database.use().values()))

            assert (await ask("db.tasks.get", {"id": str(task)})).status == 200
            assert (await ask(RUN, {"sql": ["SELECT 1"]})).status == 200
            assert GATE.begun == THREADS

    async def test_beyond_its_places_it_is_shed(self, ask: Asker, service: Service) -> None:
        async with held(ask, service, PLACES) as calls:
            for subject in (OPEN, OPEN_ALL):
                got = await ask(subject, {"secret": "s"}, key="k")
                assert_problem(got, 429, "overloaded", retryable=True)
                assert "hashing" in got.body["detail"]
                assert got.body["in_flight"] == PLACES
            assert GATE.prepared == PLACES
        assert {(await call).status for call in calls} == {200}
        assert (await ask(OPEN, {"secret": "s"}, key="k")).status == 200

    async def test_a_deadline_is_answered(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        async with held(ask, service, THREADS):
            got = await ask(OPEN, {"secret": "s"}, deadline=0.4)
            assert_problem(got, 504, "deadline_exceeded", retryable=True)
            await eventually(lambda: hashing_of(service).admitted == THREADS)
        assert await count_of(db, "bus.sweeps") == GATE.begun == THREADS

    async def test_a_deadline_in_the_thread_is_answered(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        GATE.opened.clear()
        hashing = hashing_of(service)
        for _ in range(THREADS):
            got = await ask(OPEN, {"secret": "s"}, deadline=0.4)
            assert_problem(got, 504, "deadline_exceeded", retryable=True)
        await eventually(lambda: hashing.admitted == 0)
        assert hashing.working == THREADS, "a thread that has begun has no turn to give"

        GATE.opened.set()

        assert (await ask(OPEN, {"secret": "s"})).status == 200
        assert await count_of(db, "bus.sweeps") == 1
        await eventually(lambda: hashing.working == 0)


class TestTogether:
    async def test_each_is_prepared(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await execute(
            ask,
            (OPEN, {"secret": "a"}),
            (NOTE_HASH, {"id": str(task), "secret": "b"}),
            (OPEN_ALL, {"secret": "c"}),
            key="k",
        )

        assert got.status == 200, got
        first, noted, last = got.body["replies"]
        digests = [first["digest"], noted["summary"], last["digest"]]
        assert digests == [digest_of(secret) for secret in "abc"]
        assert (await execute(ask, (OPEN, {"secret": "z"}), key="k")).status == 409
        assert GATE.prepared == 3

    async def test_a_repeat_is_not_prepared_again(self, ask: Asker) -> None:
        steps = [(OPEN, {"secret": "a"}), (OPEN_ALL, {"secret": "b"})]

        first, second = [await execute(ask, *steps, key="k") for _ in range(2)]

        assert (first.status, first.data, second.replayed) == (200, second.data, True)
        assert GATE.prepared == 2

    async def test_a_deadline_ends_it(self, ask: Asker, db: AsyncConnection) -> None:
        GATE.opened.clear()
        got = await execute(ask, *[(OPEN, {"secret": "a"})] * 3, deadline=0.4)
        assert_problem(got, 504, "deadline_exceeded", retryable=True)
        GATE.opened.set()

        assert (await ask(OPEN, {"secret": "s"})).status == 200
        assert (GATE.prepared, await count_of(db, "bus.sweeps")) == (2, 1)

    @pytest.mark.parametrize("then", ["refuse", "refuse_slowly"])
    async def test_the_one_that_is_refused_is_named(
        self, ask: Asker, db: AsyncConnection, then: str
    ) -> None:
        got = await execute(ask, (OPEN, {"secret": "a"}), (OPEN_ALL, {"secret": "b", "then": then}))

        assert_of(got, 409, "probe_refused", 1, OPEN_ALL)
        assert await count_of(db, "bus.sweeps") == 0

    async def test_it_takes_one_place(self, ask: Asker, service: Service) -> None:
        async with held(ask, service, PLACES - 1):
            call = asyncio.create_task(execute(ask, *[(OPEN, {"secret": "a"})] * 3))
            await eventually(lambda: hashing_of(service).admitted == PLACES)
            assert_problem(await ask(OPEN, {"secret": "s"}), 429, "overloaded", retryable=True)
        assert (await call).status == 200


class TestHashing:
    async def test_whoever_gives_up_in_the_queue_leaves_it(self) -> None:
        hashing = Hashing(1)
        GATE.opened.clear()
        first = asyncio.create_task(hashing.do(Slow(GATE.pass_by)))
        await eventually(lambda: GATE.begun == 1)
        second = asyncio.create_task(hashing.do(Slow(GATE.pass_by)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second

        GATE.opened.set()
        await first

        assert (GATE.begun, hashing.working) == (1, 0)
        assert await hashing.do(Slow(str, 7)) == "7"
