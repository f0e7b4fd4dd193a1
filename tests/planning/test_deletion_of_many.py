"""Fifty thousand tasks are deleted, and nobody else waits for it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.calls import Call
from bus.running.executor import Executor
from bus.running.registry import Registry
from bus.storage.own import deletions as _deletions
from contracts.planning.initiatives import CreateInitiative, DeleteInitiative
from contracts.planning.tasks import ClaimTasks, CompleteTask, CreateTask
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import REMOVED_PER_STEP
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep
from tests.planning.test_deletions_in_steps import left

MANY = 50_000

# One of ten is at the top; the others are below it, and each depends on the one before it.
TASKS = """
    WITH made AS MATERIALIZED (
        SELECT n, uuidv7() AS id, (n - 1) / 10 AS tree FROM generate_series(1, :number) AS n
    ), tasks AS (
        INSERT INTO planning.tasks (id, name, priority, initiative_id, parent_task_id)
        SELECT one.id, 'task ' || one.n, 'high', :initiative, top.id
        FROM made one LEFT JOIN made top ON top.tree = one.tree AND top.n % 10 = 1 AND top.n < one.n
        RETURNING 1
    )
    INSERT INTO planning.task_dependencies (id, task_id, depends_on_task_id)
    SELECT uuidv7(), one.id, other.id FROM made one JOIN made other ON other.n = one.n - 1
    WHERE one.n % 10 <> 1 AND (SELECT count(*) FROM tasks) > 0
"""


async def many_tasks(bus: Bus, db: AsyncConnection) -> UUID:
    initiative = await bus.call(CreateInitiative(name="many"))
    await db.execute(text(TASKS), {"initiative": initiative.id, "number": MANY})
    await db.execute(text("ANALYZE planning.tasks, planning.task_dependencies"))
    return initiative.id


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110  the database tells nobody
            await asyncio.sleep(0.05)


class Others:
    """Agents of another initiative: they create tasks, claim what comes first, and complete it."""

    def __init__(self, bus: Bus, initiative: UUID) -> None:
        self.got: Counter[str] = Counter()
        self._bus, self._initiative, self._over = bus, initiative, False
        self._working = [asyncio.create_task(self._work(f"agent {n}")) for n in range(4)]

    async def _work(self, name: str) -> None:
        while not self._over:
            await self._bus.call(CreateTask(name=name, initiative_id=self._initiative))
            self.got["created"] += 1
            for claimed in (await self._bus.call(ClaimTasks(agent_id=name))).tasks:
                assert claimed.task.initiative_id == self._initiative
                await self._bus.call(CompleteTask(id=claimed.task.id))
                self.got["completed"] += 1

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._working)


async def test_others_wait_for_no_lock_and_who_takes_over_goes_on(
    settings: Settings,
    bus: Bus,
    registry: Registry,
    db: AsyncConnection,
    outbox: Outbox,
    monkeypatch: pytest.MonkeyPatch,
    sweep: Sweep,
) -> None:
    locked_out: list[str] = []
    run_alone = Executor.run_alone

    async def counted(self: Executor, call: Call) -> None:
        locked_out.append(call.bound.subject)
        await run_alone(self, call)

    monkeypatch.setattr(Executor, "run_alone", counted)
    initiative, other = await many_tasks(bus, db), await bus.call(CreateInitiative(name="other"))
    # It keeps the initiative open, whatever is completed.
    blocked = CreateTask(
        name="b", initiative_id=other.id, status="blocked", blocked_reason="for good"
    )
    await bus.call(blocked)
    deletion = await bus.call(DeleteInitiative(id=initiative))
    assert deletion.deleted.tasks == MANY
    others = Others(bus, other.id)
    try:
        for _ in range(3):
            assert await sweep("remove_deleted") >= REMOVED_PER_STEP
        assert 0 < (await _deletions.under_way(db)).parts < MANY
        removing = Service(settings.model_copy(update={"sweeper": True, "relay": False}), registry)
        await removing.start()
        try:

            async def over() -> bool:
                return not (await _deletions.under_way(db)).number

            await until(over)
        finally:
            assert await removing.stop()
    finally:
        await others.stop()

    assert locked_out == []
    # Who claims while all that is ready is being claimed by others finds nothing.
    assert others.got["created"] - others.got["completed"] == await db.scalar(
        text("SELECT count(*) FROM planning.tasks WHERE status = 'pending'")
    )
    assert others.got["completed"] > 0
    assert await left(db) == {"initiatives": 1, "tasks": others.got["created"] + 1}
    types = Counter(await outbox.types())
    assert types["initiative.deleted"] == 1
    assert types["task.deleted"] == 0
    assert types["task.completed"] == others.got["completed"]
