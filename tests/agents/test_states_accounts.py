"""Histories of one account through the pure deciders, by a clock that also goes back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.contract.event import Event
from bus.contract.refusals import Refusal
from bus.handling import Decision
from bus.kit.ids import uuid7
from contracts.agents.accounts import (
    Account,
    AccountAvailable,
    AccountExhausted,
    AccountUpdated,
    ClearAccountExhausted,
    CreateAccount,
    MarkAccountExhausted,
    UpdateAccount,
)
from handlers.agents import accounts
from handlers.agents._account_turns import take

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 8).map(lambda hours: START + timedelta(hours=hours))
PAUSES = st.sampled_from([timedelta(hours=hours) for hours in (-1, 1, 6)])


class Histories(RuleBasedStateMachine):
    @initialize()
    def created(self) -> None:
        self.now = START
        self.used: list[datetime] = []
        self.exhausted = False
        command = CreateAccount(email="fleet@example.com")
        self.account = accounts.create_account(command, new_id=uuid7(), now=self.now).entity

    @rule(until=st.none() | TIMES)
    def mark_exhausted(self, until: datetime | None) -> None:
        command = MarkAccountExhausted(id=self.account.id, until=until)
        before = self.account.exhausted_until
        known = self.exhausted and (before is None or (until is not None and until <= before))
        self.step(
            lambda: accounts.mark_account_exhausted(command, self.account, now=self.now),
            *([] if known else [AccountExhausted]),
        )
        self.exhausted = True
        assert self.account.exhausted_until == (before if known else until)

    @rule()
    def clear_exhausted(self) -> None:
        command = ClearAccountExhausted(id=self.account.id)
        self.step(
            lambda: accounts.clear_account_exhausted(command, self.account, now=self.now),
            *([AccountAvailable] if self.exhausted else []),
        )
        self.exhausted = False

    @precondition(lambda self: self._can_be_used())
    @rule(elsewhere=st.timedeltas(timedelta(), timedelta(hours=1)))
    def acquire(self, elsewhere: timedelta) -> None:
        """Another account of the provider may have been used later than this one."""
        last = max(self.used) + elsewhere if self.used else None
        self.step(
            lambda: take(self.account, last, self.now),
            *([AccountAvailable] if self.exhausted else []),
            AccountUpdated,
        )
        assert self.account.last_used_at is not None
        assert last is None or self.account.last_used_at > last
        assert self.account.last_used_at >= self.now
        self.used.append(self.account.last_used_at)
        self.exhausted = False

    @rule(order=st.integers(0, 2), version=st.none() | st.integers(1, 4))
    def update(self, order: int, version: int | None) -> None:
        command = UpdateAccount(id=self.account.id, sort_order=order, expected_version=version)
        stale = version not in {None, self.account.version}
        changes = order != self.account.sort_order and not stale
        self.step(
            lambda: accounts.update_account(command, self.account, now=self.now),
            *([AccountUpdated] if changes else []),
        )

    @rule(by=PAUSES)
    def wait(self, by: timedelta) -> None:
        self.now += by

    def step(self, decide: Callable[[], Decision[Account]], *told: type[Event]) -> None:
        """One decision: each event is a version, and without one nothing is changed."""
        before, as_it_was = self.account, self.account.model_dump_json()
        try:
            decision = decide()
        except Refusal:
            decision = Decision(before)
        self.account = decision.entity
        assert [type(event) for event in decision.events] == list(told)
        assert self.account.version == before.version + len(told)
        assert (self.account is before) == (not told)
        assert before.model_dump_json() == as_it_was

    @invariant()
    def it_is_whole(self) -> None:
        account = self.account
        assert Account.model_validate_json(account.model_dump_json()) == account
        assert account.is_exhausted == self.exhausted
        assert account.is_exhausted or account.exhausted_until is None

    @invariant()
    def its_uses_are_in_order(self) -> None:
        assert self.used == sorted(set(self.used))

    def _can_be_used(self) -> bool:
        """As the query sees it that looks for the next one."""
        until = self.account.exhausted_until
        return not self.exhausted or (until is not None and until <= self.now)


TestHistories = Histories.TestCase
