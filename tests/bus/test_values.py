"""What is accepted can be read back."""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.bus.asking import Asker, add_tasks

SMALLEST = 5e-324


class TestNumbers:
    @pytest.mark.parametrize(
        "value",
        [0, -1, 2**53 + 1, 10**299, 0.1, 1e22, SMALLEST, -1e299],
    )
    async def test_one_that_is_accepted_comes_back(
        self, ask: Asker, db: AsyncConnection, value: float
    ) -> None:
        await _comes_back(ask, db, value)

    @pytest.mark.parametrize("value", [1e300, 1e305, -1.7e308])
    async def test_a_large_one_comes_back_or_is_refused(
        self, ask: Asker, db: AsyncConnection, value: float
    ) -> None:
        await _comes_back(ask, db, value)


async def _comes_back(ask: Asker, db: AsyncConnection, value: float) -> None:
    [task] = await add_tasks(db)

    done = await ask("db.tasks.complete", {"id": str(task), "result": {"n": value}})
    read = await ask("db.tasks.get", {"id": str(task)})

    assert read.status == 200
    if done.status == 200:
        assert float(read.body["result"]["n"]) == float(value)
