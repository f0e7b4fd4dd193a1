"""UUIDs of version 7: ordered, unique, and of the right form."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from bus.kit import ids
from bus.kit.ids import uuid7


def milliseconds(id_: UUID) -> int:
    return id_.int >> 80


class TestUuid7:
    def test_version_and_variant(self) -> None:
        made = [uuid7() for _ in range(1_000)]

        assert {(id_.version, id_.variant) for id_ in made} == {(7, RFC_4122)}

    def test_the_time_is_now(self) -> None:
        before = time.time_ns() // 1_000_000
        made = milliseconds(uuid7())
        after = time.time_ns() // 1_000_000

        assert before <= made <= after + 1

    def test_each_is_greater_than_the_one_before(self) -> None:
        made = [uuid7() for _ in range(50_000)]

        assert made == sorted(made)
        assert len(set(made)) == len(made)
        assert [str(id_) for id_ in made] == sorted(str(id_) for id_ in made)

    def test_also_when_the_clock_stands_or_goes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        times = iter([10**18, 10**18, 10**18 - 10**9, 10**18 - 1, 10**18 + 1])
        monkeypatch.setattr(ids, "_last", 0)
        monkeypatch.setattr(time, "time_ns", lambda: next(times))

        made = [uuid7() for _ in range(5)]

        assert made == sorted(made)
        assert len({id_.int >> 64 for id_ in made}) == 5

    def test_threads_do_not_share_one(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: uuid7(), range(20_000)))

        assert len(set(made)) == len(made)
