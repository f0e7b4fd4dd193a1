"""Whatever happens to a plan: what is stored as ready is ready, and that is told and given out."""

import asyncio
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import ClaimedTasks, ClaimTasks, GetTaskQueue, ListTasks
from fleetbus.client import Bus
from tests.planning._histories import CATEGORIES, COMMANDS, Plan, Seen, Step

OFTEN = ("create", "create", "create_many", "claim", "claim", "complete", "depend", "retry")
STEP = st.builds(
    Step,
    what=st.sampled_from([*COMMANDS, *OFTEN]),
    one=st.integers(0, 40),
    other=st.integers(0, 40),
)


def runs(test: Any, examples: int, size: int, most: int) -> Any:
    """A check that runs a coroutine over histories: groups of steps, each sent at once."""
    loop = asyncio.get_running_loop()

    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.lists(STEP, min_size=1, max_size=most), min_size=size // 2, max_size=size))
    def check(history: list[list[Step]]) -> None:
        asyncio.run_coroutine_threadsafe(test(history), loop).result(120)

    return check


async def agrees(plan: Plan) -> Seen:
    """What is stored says what the definition says."""
    seen = await plan.see()
    ready = set(seen.ready())
    for id_, task in seen.tasks.items():
        assert task.in_phase_id == seen.phase_of(id_)
        stored = task.status == "pending" and not task.held and task.underway
        assert stored == (id_ in ready), task
    listed: set[UUID] = set()
    waiting = 0
    for initiative in plan.initiatives:
        page = await plan.bus.call(ListTasks(initiative_id=initiative, ready=True, limit=500))
        listed |= {task.id for task in page.items}
        queue = await plan.bus.call(GetTaskQueue(initiative_id=initiative))
        waiting += queue.waiting
        assert queue.ready == len(page.items)
    assert listed == ready
    assert waiting == sum(task.status == "pending" for task in seen.tasks.values()) - len(ready)
    return seen


def expected(claim: ClaimTasks, seen: Seen) -> list[UUID]:
    """What a claim that is alone gets."""
    return [
        id_
        for id_ in seen.ready()
        if seen.tasks[id_].category in claim.categories
        and claim.initiative_id in {None, seen.tasks[id_].initiative_id}
        and claim.phase_id in {None, seen.phase_of(id_)}
    ][: claim.limit]


async def all_ready_is_given_out(plan: Plan, seen: Seen) -> None:
    taken: list[UUID] = []
    for initiative in plan.initiatives:
        claim = ClaimTasks(agent_id="a", initiative_id=initiative, categories=CATEGORIES, limit=50)
        while found := (await plan.bus.call(claim)).tasks:
            taken += [one.task.id for one in found]
    assert sorted(taken) == sorted(seen.ready())


class TestHistories:
    async def test_one_after_the_other(self, bus: Bus, db: AsyncConnection) -> None:
        async def follow(history: list[list[Step]]) -> None:
            plan = Plan(bus, db)
            await plan.begin()
            before = await plan.see()
            _, position = await plan.told_ready(0)
            for [step] in history:
                command = COMMANDS[step.what](plan, step)
                [answer] = await plan.do([step]) or [None]
                if isinstance(command, ClaimTasks) and isinstance(answer, ClaimedTasks):
                    given_out = [one.task.id for one in answer.tasks]
                    assert given_out == expected(command, before)
                after = await agrees(plan)
                told, position = await plan.told_ready(position)
                became = set(after.ready()) - set(before.ready())
                assert told == dict.fromkeys(became & before.tasks.keys(), 1), step
                before = after
            await all_ready_is_given_out(plan, before)

        await asyncio.to_thread(runs(follow, examples=8, size=30, most=1))

    async def test_at_once(self, bus: Bus, db: AsyncConnection) -> None:
        async def follow(history: list[list[Step]]) -> None:
            plan = Plan(bus, db)
            await plan.begin()
            before = await plan.see()
            _, position = await plan.told_ready(0)
            for steps in history:
                await plan.do(steps)
                after = await agrees(plan)
                told, position = await plan.told_ready(position)
                became = set(after.ready()) - set(before.ready())
                assert became & before.tasks.keys() <= told.keys()
                before = after
            await all_ready_is_given_out(plan, before)

        await asyncio.to_thread(runs(follow, examples=8, size=10, most=8))
