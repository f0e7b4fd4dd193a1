"""Budgets add up whatever happens in whatever order, and whoever comes new finds room."""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bus.running.admission import ALPHA, Budget, Ticket, caller_of

REQUESTS, BYTES = 24, 4_000

names = st.sampled_from([f"_INBOX.{name}" for name in "abcdef"])
steps = st.one_of(
    st.tuples(st.just("ask"), names, st.integers(0, 1_500)),
    st.tuples(st.just("answer"), st.integers(0, 200), st.integers(0, 1_500)),
    st.tuples(st.just("send"), st.integers(0, 200), st.just(0)),
)


class TestBudget:
    @examples(max_examples=300)
    @given(st.lists(steps, max_size=120))
    def test_what_is_taken_is_given_back(self, history: list[tuple[str, object, int]]) -> None:
        budget = Budget("commands", REQUESTS, BYTES, None)
        working: list[Ticket] = []
        waiting: list[Ticket] = []
        for step, about, size in history:
            if step == "ask":
                ticket = budget.admit(str(about), size)
                if isinstance(ticket, Ticket):
                    working.append(ticket)
            elif step == "answer" and working:
                waiting.append(working.pop(int(str(about)) % len(working)))
                waiting[-1].answered(size)
            elif step == "send" and waiting:
                waiting.pop(int(str(about)) % len(waiting)).sent()
            assert budget.requests == len(working)
            assert budget.requests <= REQUESTS + REQUESTS // ALPHA
            assert (budget.callers == 0) == (not working and not waiting)
        for ticket in working:
            ticket.answered(7)
        for ticket in [*working, *waiting]:
            ticket.sent()
        assert (budget.requests, budget.bytes, budget.callers) == (0, 0, 0)

    @examples(max_examples=100)
    @given(st.lists(names, min_size=REQUESTS * 4, max_size=REQUESTS * 8))
    def test_however_few_flood_it_there_is_room_for_a_newcomer(self, asking: list[str]) -> None:
        floods = set(asking[:2])
        budget = Budget("commands", REQUESTS, BYTES, None)
        for name in asking:
            budget.admit(name if name in floods else asking[0], 0)

        assert isinstance(budget.admit("_INBOX.new", 0), Ticket)

    def test_alone_a_caller_may_have_all_of_it(self) -> None:
        budget = Budget("commands", REQUESTS, BYTES, None)

        answers = [budget.admit("a", 0) for _ in range(REQUESTS + 5)]

        assert [type(answer) for answer in answers[:REQUESTS]] == [Ticket] * REQUESTS
        assert answers[REQUESTS:] == ["commands"] * 5

    def test_beside_another_one_it_has_its_share(self) -> None:
        budget = Budget("commands", REQUESTS, BYTES, None)
        budget.admit("b", 0)

        answers = [budget.admit("a", 0) for _ in range(REQUESTS)]

        taken = [answer for answer in answers if isinstance(answer, Ticket)]
        assert (len(taken), answers[-1]) == (REQUESTS // 4, "caller")

    def test_bytes_are_shared_as_well(self) -> None:
        budget = Budget("commands", REQUESTS, BYTES, None)

        flood = [budget.admit("a", 1_000) for _ in range(5)]

        assert flood[3:] == ["bytes", "bytes"]
        assert isinstance(budget.admit("b", 900), Ticket)
        assert budget.admit("a", 1) == "bytes"
        assert budget.admit("b", 90) == "caller_bytes"

    def test_what_is_larger_than_all_of_it_has_it_alone(self) -> None:
        budget = Budget("commands", REQUESTS, BYTES, None)

        assert isinstance(budget.admit("a", 2 * BYTES), Ticket)
        assert budget.admit("b", 1) == "bytes"


class TestCallerOf:
    @pytest.mark.parametrize(
        ("reply", "caller"),
        [
            ("_INBOX.NUID22.token", "_INBOX.NUID22"),
            ("_INBOX.NUID22.1.2", "_INBOX.NUID22"),
            ("_INBOX.once", "_INBOX.once"),
            ("_INBOX_site.conn.7", "_INBOX_site.conn"),
            ("", ""),
        ],
    )
    def test_it_is_the_inbox_of_the_connection(self, reply: str, caller: str) -> None:
        assert caller_of(reply) == caller
