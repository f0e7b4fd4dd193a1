"""Counts, times, quantiles."""

from hypothesis import given
from hypothesis import strategies as st

from bus.contract.errors import Overloaded, Unavailable
from bus.running.calls import Answer
from bus.running.stats import Histogram, OperationStats

NANOSECONDS = st.integers(0, 10**13)


class TestHistogram:
    @given(st.lists(NANOSECONDS, min_size=1, max_size=200), st.floats(0.01, 1))
    def test_a_quantile_is_an_eighth_above_the_true_one_at_most(
        self, durations: list[int], share: float
    ) -> None:
        histogram = Histogram()
        for duration in durations:
            histogram.add(duration)

        wanted = share * len(durations)
        true = next(d for n, d in enumerate(sorted(durations), start=1) if n >= wanted)

        assert true <= histogram.quantile(share) <= max(true, 1) * 1.125 + 1

    @given(st.lists(NANOSECONDS, min_size=1, max_size=50))
    def test_quantiles_do_not_fall(self, durations: list[int]) -> None:
        histogram = Histogram()
        for duration in durations:
            histogram.add(duration)

        quantiles = [histogram.quantile(n / 20) for n in range(21)]

        assert quantiles == sorted(quantiles)

    @given(st.lists(NANOSECONDS, max_size=200), st.lists(st.integers(0, 45), max_size=20))
    def test_below_a_power_of_two_it_counts_exactly(
        self, durations: list[int], powers: list[int]
    ) -> None:
        histogram = Histogram()
        for duration in durations:
            histogram.add(duration)
        bounds = sorted(1 << power for power in powers)

        counts = list(histogram.below(bounds))

        assert counts == [sum(max(d, 1) < bound for d in durations) for bound in bounds]

    def test_of_nothing_it_is_0(self) -> None:
        assert Histogram().quantile(0.5) == 0

    def test_it_counts_and_adds(self) -> None:
        histogram = Histogram()
        for duration in (1, 2, 3):
            histogram.add(duration)

        assert (histogram.count, histogram.total) == (3, 6)


class TestOperationStats:
    def test_an_error_is_counted_by_its_type(self) -> None:
        stats = OperationStats()

        stats.count(Answer(200, b"{}"), 5)
        stats.count(Answer.refused(Unavailable()), 5)

        assert (stats.requests, stats.errors, stats.last_error) == (2, 1, "503:unavailable")
        assert stats.data()["errors_by_type"] == {"unavailable": 1}

    def test_what_is_shed_counts_as_an_error_without_a_time(self) -> None:
        stats = OperationStats()

        stats.count(Answer(200, b"{}"), 5)
        stats.count_shed(Answer.refused(Overloaded(in_flight=1, retry_after_ms=1)))

        assert (stats.requests, stats.errors, stats.shed) == (2, 1, 1)
        assert (stats.errors_by_status, stats.times.count) == ({429: 1}, 1)

    def test_batches_are_told(self) -> None:
        stats = OperationStats()
        stats.batches.update([1, 1, 7])

        data = stats.data()

        assert (data["batches"], data["largest_batch"]) == (3, 7)

    def test_a_reset_keeps_what_is_in_flight(self) -> None:
        stats = OperationStats()
        stats.in_flight = 3
        stats.count(Answer(200, b"{}"), 5)

        stats.reset()

        assert (stats.requests, stats.times.count, stats.in_flight) == (0, 0, 3)
