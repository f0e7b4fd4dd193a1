"""Sets and ranges of positions, against Python's own sets."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bus.storage.own.outbox import RelayState
from bus.storage.own.reconciliation import Mark
from fleetbus.server.relay.comparison import expected
from fleetbus.server.relay.positions import PositionSet, Ranges, within, without

LAST = 60


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """Ranges apart from each other, in order."""
    ends = sorted(draw(st.sets(st.integers(1, LAST), max_size=8)))
    return tuple(zip(ends[::2], ends[1::2], strict=False))


def members(given_ranges: Ranges) -> set[int]:
    return {number for first, last in given_ranges for number in range(first, last + 1)}


@given(ranges(), ranges())
def test_without(whole: Ranges, holes: Ranges) -> None:
    left = without(whole, holes)
    assert members(left) == members(whole) - members(holes)
    assert list(left) == sorted(left)


@given(ranges(), st.integers(1, LAST), st.integers(1, LAST))
def test_within(whole: Ranges, first: int, last: int) -> None:
    assert members(within(whole, first, last)) == members(whole) & set(range(first, last + 1))


@given(st.sets(st.integers(1, 300_000)), st.integers(1, 300_000))
def test_a_set_holds_what_was_put_in(added: set[int], other: int) -> None:
    held = PositionSet()
    for position in added:
        held.add(position)
    assert all(position in held for position in added)
    assert (other in held) == (other in added)
    assert held.highest == max(added, default=0)


def test_expected_is_what_was_relayed_and_not_found_whole_before() -> None:
    """What lay in a hole when the mark was made, and does so no more, is expected by now."""
    state = RelayState(cursor=100, holes=[(5, 6), (90, 92)], stream_sequence=1, xid=1)
    assert expected(state, None) == ((1, 4), (7, 89), (93, 100))
    now = datetime.now(UTC)
    mark = Mark(now, 1, 0, 50, "id", cursor=50, holes=((4, 6), (20, 20)))
    assert expected(state, mark) == ((4, 4), (20, 20), (51, 89), (93, 100))
    unmoved = mark._replace(cursor=100, holes=((5, 6), (90, 92)))
    assert expected(state, unmoved) == ()
