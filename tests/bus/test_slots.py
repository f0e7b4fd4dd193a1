"""Who gets a slot, and when."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bus.storage.slots import RESERVE, Slots

SIZE = 3

MANY = 5
"""Rounds of the event loop after which every task that can go on has done so."""


class Caller:
    """Wants a slot, and keeps it until it is told to let go."""

    def __init__(self, slots: Slots, served: list["Caller"], *, vital: bool) -> None:
        self.vital = vital
        self._slots = slots
        self._served = served
        self._done = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._slots.slot(vital=self.vital):
            self._served.append(self)
            await self._done.wait()

    def let_go(self) -> None:
        self._done.set()


class Crowd:
    """Callers in the order in which they came."""

    def __init__(self) -> None:
        self.slots = Slots(SIZE)
        self.served: list[Caller] = []
        self.callers: list[Caller] = []

    async def come(self, count: int, *, vital: bool) -> list[Caller]:
        new = [Caller(self.slots, self.served, vital=vital) for _ in range(count)]
        self.callers += new
        await settled()
        return new

    def holding(self) -> list[Caller]:
        return [caller for caller in self.served if not caller.task.done()]

    def waiting(self) -> list[Caller]:
        return [c for c in self.callers if c not in self.served and not c.task.done()]

    async def let_go(self, caller: Caller) -> None:
        caller.let_go()
        await settled()


async def settled() -> None:
    """Let every task go on until it waits."""
    for _ in range(MANY):
        await asyncio.sleep(0)


async def test_all_but_the_reserve_is_for_all() -> None:
    crowd = Crowd()

    await crowd.come(10, vital=False)

    assert crowd.served == crowd.callers[:SIZE]
    assert (crowd.slots.in_use, crowd.slots.waiting) == (SIZE, 10 - SIZE)


async def test_what_is_vital_waits_for_no_other() -> None:
    crowd = Crowd()
    await crowd.come(100, vital=False)

    [first, second] = await crowd.come(2, vital=True)

    assert (crowd.served[-1], second in crowd.served) == (first, False)
    await crowd.let_go(first)
    assert crowd.served[-1] is second


async def test_what_is_vital_may_take_everything() -> None:
    crowd = Crowd()

    await crowd.come(10, vital=True)

    assert crowd.served == crowd.callers[: SIZE + RESERVE]


async def test_others_have_what_is_theirs_before_a_queue_of_vital_ones() -> None:
    crowd = Crowd()
    vital = await crowd.come(100, vital=True)
    others = await crowd.come(100, vital=False)

    for caller in vital[: SIZE + RESERVE]:
        await crowd.let_go(caller)

    assert crowd.holding() == [*others[:SIZE], vital[SIZE + RESERVE]]


@pytest.mark.parametrize("vital", [False, True])
@pytest.mark.parametrize("next_is_vital", [False, True])
async def test_a_slot_goes_on_from_who_was_cancelled_at_that_moment(
    *, vital: bool, next_is_vital: bool
) -> None:
    crowd = Crowd()
    await crowd.come(SIZE, vital=False)
    await crowd.come(RESERVE, vital=True)
    [chosen] = await crowd.come(1, vital=vital)
    [after] = await crowd.come(1, vital=next_is_vital)
    holder = next(caller for caller in crowd.served if caller.vital == vital)

    holder.let_go()
    for _ in range(MANY):
        if crowd.slots.waiting < 2:
            break
        await asyncio.sleep(0)
    assert chosen not in crowd.served, "the slot is its own, and it does not know yet"
    chosen.task.cancel()
    await settled()

    assert chosen.task.cancelled()
    assert (after in crowd.served) == (vital <= next_is_vital)
    assert crowd.slots.waiting == (not vital <= next_is_vital)


async def test_who_gives_up_waiting_is_forgotten() -> None:
    crowd = Crowd()
    await crowd.come(SIZE + 3, vital=False)

    crowd.waiting()[1].task.cancel()
    await settled()

    assert crowd.slots.waiting == 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come vital", "let go", "let go", "cancel", "crash"]),
        st.integers(0, 50),
        st.booleans(),
    ),
    max_size=60,
)
"""What happens, to whom, and whether it is over before the next thing happens."""


def do(crowd: Crowd, what: str, number: int) -> None:
    if what.startswith("come"):
        crowd.callers.append(Caller(crowd.slots, crowd.served, vital=what == "come vital"))
        return
    some = crowd.waiting() if what == "cancel" else crowd.holding()
    if some:
        caller = some[number % len(some)]
        act: Callable[[], Any] = caller.let_go if what == "let go" else caller.task.cancel
        act()


def check(crowd: Crowd) -> None:
    """What holds whenever nothing is on its way."""
    slots, holding, waiting = crowd.slots, crowd.holding(), crowd.waiting()
    of_others = sum(not caller.vital for caller in holding)
    assert (slots.in_use, slots.waiting) == (len(holding), len(waiting))
    assert of_others <= SIZE
    assert len(holding) <= slots.size == SIZE + RESERVE
    if any(caller.vital for caller in waiting):
        assert len(holding) == slots.size
    if any(not caller.vital for caller in waiting):
        assert of_others == SIZE or len(holding) == slots.size
    for vital in (False, True):
        alike = [
            c for c in crowd.callers if c.vital == vital and (c in waiting or c in crowd.served)
        ]
        assert alike == sorted(alike, key=waiting.__contains__), "who came first is served first"


@hypothesis_settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens(steps: list[tuple[str, int, bool]]) -> None:
    async def history() -> None:
        crowd = Crowd()
        for what, number, over in steps:
            do(crowd, what, number)
            if over:
                await settled()
                check(crowd)
        await settled()
        check(crowd)
        while holding := crowd.holding():
            await crowd.let_go(holding[0])
            check(crowd)
        assert crowd.slots.in_use == crowd.slots.waiting == 0
        assert all(c.task.cancelled() or c in crowd.served for c in crowd.callers)

    asyncio.run(history())
