"""Random histories of a plan over the bus, against a model that knows no database."""

import asyncio
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from fleetbus.client import Bus
from tests.planning import arrange
from tests.planning._plan_history import History

STEPS = 40
"""How much is done to a plan before it is brought to its end."""


async def test_every_container_is_what_it_holds_and_nothing_waits_for_ever(
    bus: Bus, db: AsyncConnection
) -> None:
    loop = asyncio.get_running_loop()

    async def live(seed: int, mode: Any) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode=mode)
        history = History(bus, db, initiative.id, mode)
        chance = random.Random(seed)
        for _ in range(3):
            await history.create_phase(task=uuid7())
        for _ in range(STEPS):
            await history.step(chance)
        await history.drive(chance)

    @settings(
        max_examples=5,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 1_000_000), st.sampled_from(["yolo", "review_per_phase"]))
    def check(seed: int, mode: str) -> None:
        asyncio.run_coroutine_threadsafe(live(seed, mode), loop).result(60)

    await asyncio.to_thread(check)
