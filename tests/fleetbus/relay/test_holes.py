"""Histories of concurrent transactions, and what a relay makes of them."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import groupby

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fleetbus.server.relay.holes import LAST_POSITION, Cursor, Hole, Step, View, step
from tests.fleetbus.relay.simulated import Database, Relay, Row, Transaction, is_wanted, look

Action = tuple[str, int, int | None]

SESSIONS = 3
KINDS = ["take"] * 4 + ["commit"] * 3 + ["rollback", "write"]

session_actions = st.tuples(st.sampled_from(KINDS), st.integers(0, SESSIONS - 1), st.none())
looks = st.tuples(st.just("relay"), st.sampled_from([1, 2, 100]), st.none())
crashes = st.tuples(st.just("relay"), st.sampled_from([1, 2, 100]), st.integers(0, 3))
lulls = st.tuples(st.just("all end"), st.just(0), st.none())
jumps = st.tuples(st.just("jump"), st.integers(1, 10**12), st.none())
actions = st.one_of(*[session_actions] * 7, *[looks] * 3, crashes, lulls, jumps)
histories = st.lists(actions, min_size=10, max_size=50)


LOOK: Action = ("relay", 100, None)
ALL_END: Action = ("all end", 0, None)


def does(kind: str, *sessions: int) -> list[Action]:
    return [(kind, session, None) for session in sessions]


# Found by generation, kept because it takes thousands of histories to find them again.
HIGHER_XID_LOWER_POSITION = [
    *does("write", 0), *does("take", 1, 0), *does("commit", 0), LOOK, LOOK, *does("commit", 1),
]  # fmt: skip
EFFECT_OF_A_LATE_CAUSE = [
    *does("take", 0, 1), *does("commit", 1), LOOK, *does("commit", 0), *does("take", 2), ALL_END,
    LOOK,
]  # fmt: skip
APPEARED_BEYOND_THE_PAGE = [
    *does("take", 0, 1, 2), *does("commit", 2), LOOK, ALL_END, ("relay", 1, None),
]  # fmt: skip
CUT_OFF_BY_THE_PAGE = [*does("take", 0, 1, 0), ALL_END, ("relay", 2, None)]


def play(history: Iterable[Action], database: Database, relay: Relay) -> None:
    sessions: dict[int, Transaction] = {}
    for kind, number, crash_after in history:
        if kind == "relay":
            relay.work(page=number, crash_after=crash_after)
            assert_nothing_is_forgotten(database, relay)
        elif kind == "jump":
            database.jump(number)
        elif kind == "all end":
            for transaction in list(database.running):
                database.end(transaction, commit=True)
        elif kind in {"take", "write"}:
            if sessions.get(number) not in database.running:
                sessions[number] = database.begin()
            act = database.take if kind == "take" else database.assign
            act(sessions[number])
        elif sessions.get(number) in database.running:
            database.end(sessions[number], commit=kind == "commit")


def come_to_rest(database: Database, relay: Relay) -> None:
    for number, transaction in enumerate(list(database.running)):
        database.end(transaction, commit=number % 3 != 0)
    for _ in range(1000):
        if not relay.work(page=5):
            return
    pytest.fail("the relay never comes to rest")


def assert_nothing_is_forgotten(database: Database, relay: Relay) -> None:
    owed = {position for running in database.running for position in running.positions}
    owed |= {row.position for row in set(database.rows) - set(relay.stream)}
    assert all(is_wanted(relay.cursor, position) for position in owed)


def assert_complete(database: Database, relay: Relay) -> None:
    assert sorted(relay.stream) == database.rows
    assert relay.cursor.holes == ()


def assert_together_and_causal(database: Database, relay: Relay) -> None:
    xids = [xid for xid, _ in groupby(row.xid for row in relay.stream)]
    assert len(xids) == len(set(xids)), "a transaction is not together"
    order = {xid: place for place, xid in enumerate(xids)}
    told = [transaction for transaction in database.committed if transaction.positions]
    for earlier in told:
        for later in told:
            if earlier.committed_at < later.began_taking:
                assert order[earlier.xid or 0] < order[later.xid or 0], "an effect before its cause"
    for _, rows in groupby(relay.stream, key=lambda row: row.xid):
        positions = [row.position for row in rows]
        assert positions == sorted(positions)


def check(make: Callable[[Database], Relay], history: list[Action], *, xid_first: bool) -> None:
    database = Database(xid_first=xid_first)
    relay = make(database)
    play(history, database, relay)
    come_to_rest(database, relay)
    assert_complete(database, relay)
    assert_together_and_causal(database, relay)


def run_property(make: Callable[[Database], Relay], *, xid_first: bool = True) -> None:
    @settings(
        max_examples=1500,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate],
    )
    @given(histories)
    @example(HIGHER_XID_LOWER_POSITION)
    @example(EFFECT_OF_A_LATE_CAUSE)
    @example(APPEARED_BEYOND_THE_PAGE)
    @example(CUT_OFF_BY_THE_PAGE)
    def holds(history: list[Action]) -> None:
        check(make, history, xid_first=xid_first)

    holds()


def forgets_holes(cursor: Cursor, view: View[Row]) -> Step[Row]:
    decided = step(cursor, view)
    return replace(decided, cursor=replace(decided.cursor, holes=()))


def gives_up_at_second_sight(cursor: Cursor, view: View[Row]) -> Step[Row]:
    return step(cursor, replace(view, xmin=LAST_POSITION))


def gives_up_what_it_did_not_examine(cursor: Cursor, view: View[Row]) -> Step[Row]:
    return step(cursor, replace(view, examined=None))


def never_gives_up(cursor: Cursor, view: View[Row]) -> Step[Row]:
    return step(cursor, replace(view, xmin=0))


def publishes_by_position(cursor: Cursor, view: View[Row]) -> Step[Row]:
    return replace(step(cursor, view), transactions=[[row] for row in view.rows])


def publishes_what_appeared_last(cursor: Cursor, view: View[Row]) -> Step[Row]:
    decided = step(cursor, view)
    late = [rows for rows in decided.transactions if rows[0].position <= cursor.position]
    new = [rows for rows in decided.transactions if rows not in late]
    return replace(decided, transactions=new + late)


def looks_in_two_snapshots(
    database: Database, cursor: Cursor, page: int, lookahead: int
) -> View[Row]:
    view = look(database, cursor, page, lookahead)
    for transaction in list(database.running):
        if any(position <= cursor.position for position in transaction.positions):
            database.end(transaction, commit=True)
    return replace(view, xmin=database.xmin)


def lowest_writer(database: Database) -> int:
    """The lowest xid of whoever has taken a position and not ended."""
    return min((t.xid or 0 for t in database.running if t.positions), default=LAST_POSITION)


def asks_who_writes(database: Database, cursor: Cursor, page: int, lookahead: int) -> View[Row]:
    view = look(database, cursor, page, lookahead)
    return replace(view, xmin=lowest_writer(database))


def asks_who_writes_too_late(
    database: Database, cursor: Cursor, page: int, lookahead: int
) -> View[Row]:
    view = looks_in_two_snapshots(database, cursor, page, lookahead)
    return replace(view, xmin=lowest_writer(database))


def does_not_look_ahead(database: Database, cursor: Cursor, page: int, _: int) -> View[Row]:
    return look(database, cursor, page, 0)


def bounds_by_xmax(database: Database, cursor: Cursor, _: View[Row]) -> Cursor:
    return cursor.bounded(database.xmax)


BROKEN: dict[str, Callable[[Database], Relay]] = {
    "forgets holes": partial(Relay, decide=forgets_holes),
    "gives up too early": partial(Relay, decide=gives_up_at_second_sight),
    "gives up what it did not examine": partial(Relay, decide=gives_up_what_it_did_not_examine),
    "never gives up": partial(Relay, decide=never_gives_up),
    "publishes row by row": partial(Relay, decide=publishes_by_position),
    "publishes late ones last": partial(Relay, decide=publishes_what_appeared_last),
    "looks in two snapshots": partial(Relay, look=looks_in_two_snapshots),
    "asks who writes too late": partial(Relay, look=asks_who_writes_too_late),
    "does not look ahead": partial(Relay, look=does_not_look_ahead),
    "bounds holes by xmax": partial(Relay, bound=bounds_by_xmax),
}


class TestHistories:
    def test_every_event_once_in_causal_order(self) -> None:
        run_property(Relay)

    def test_the_next_page_may_be_read_before_this_one_is_saved(self) -> None:
        run_property(partial(Relay, reads_ahead=True))
        run_property(partial(Relay, reads_ahead=True, look=asks_who_writes))

    def test_who_has_taken_no_position_owns_no_hole(self) -> None:
        run_property(partial(Relay, look=asks_who_writes))

    @pytest.mark.parametrize("name", BROKEN)
    def test_a_broken_relay_is_caught(self, name: str) -> None:
        with pytest.raises(AssertionError):
            run_property(BROKEN[name])

    def test_it_rests_on_xid_before_position(self) -> None:
        with pytest.raises(AssertionError):
            run_property(Relay, xid_first=False)


class TestStep:
    def test_a_jump_of_the_sequence_is_one_range(self) -> None:
        decided = step(Cursor(5), View([Row(10**12, 1)], xmin=2))

        assert decided.cursor == Cursor(10**12, (Hole(6, 10**12 - 1),))

    def test_what_appears_splits_its_hole_and_keeps_the_bound(self) -> None:
        cursor = Cursor(9, (Hole(2, 8, bound=50),))

        decided = step(cursor, View([Row(5, 40)], xmin=45))

        assert decided.cursor.holes == (Hole(2, 4, bound=50), Hole(6, 8, bound=50))

    def test_a_hole_is_kept_while_its_owner_may_run_and_given_up_after(self) -> None:
        cursor = Cursor(9, (Hole(2, 2, bound=50),))

        assert step(cursor, View([], xmin=49)).cursor == cursor
        assert step(cursor, View([], xmin=50)).cursor == Cursor(9)

    def test_only_what_was_examined_is_given_up(self) -> None:
        cursor = Cursor(9, (Hole(2, 8, bound=50),))

        decided = step(cursor, View([Row(4, 40)], xmin=60, examined=4))

        assert decided.cursor.holes == (Hole(5, 8, bound=50),)

    def test_transactions_are_published_whole_by_their_highest_position(self) -> None:
        rows = [Row(1, 7), Row(2, 8), Row(3, 8), Row(4, 7)]

        assert step(Cursor(), View(rows, xmin=9)).transactions == [
            [Row(2, 8), Row(3, 8)],
            [Row(1, 7), Row(4, 7)],
        ]
