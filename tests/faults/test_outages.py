"""After an outage leases have their full length again, untold; the checker takes it for sound."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import ClaimTasks, CreateTask
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.faults.checker import check
from tests.faults.fleet import Fleet, Servers
from tests.faults.history import Recorder
from tests.faults.observing import keep_outages
from tests.faults.rounds import settle
from tests.fleetbus.sweeper.test_liveness import beat, pass_by

CHANGE = "UPDATE planning.tasks SET lease_expires_at = lease_expires_at + interval '1 s'"


@pytest.mark.parametrize("outages", [1, 2])
async def test_of_an_outage_and_of_nothing_else(
    outages: int,
    service: Service,
    bus: Bus,
    db: AsyncConnection,
    database_url: str,
    nats_url: str,
    tmp_path: Path,
) -> None:
    fleet = Fleet(database_url, [nats_url], [], [], Servers())
    await keep_outages(fleet)
    await bus.call(CreateTask(name="a task"))
    task = (await bus.call(ClaimTasks(agent_id="worker-1", lease_seconds=60))).tasks[0].task
    for _ in range(outages):
        await beat(service)
        await pass_by(db, 10, served=False)
        # Only the last proof is long ago: the lease is as the claim has told it.
        await db.execute(text("UPDATE planning.tasks SET lease_expires_at = :until"),
                         {"until": task.lease_expires_at})  # fmt: skip
        await beat(service)
    recorder = Recorder(tmp_path / "history.jsonl")

    world = await settle(fleet, recorder)

    [row] = world.tasks.values()
    told = world.outbox[-1].body["task"]
    # On a machine that stands still meanwhile there are more, and they are as real.
    assert len(world.outages) >= outages
    assert row["version"] == told["version"]
    assert row["lease_expires_at"] > told["lease_expires_at"]
    assert check(recorder.history, world) == []

    await db.execute(text(CHANGE))
    world = await settle(fleet, recorder)
    assert {violation.rule for violation in check(recorder.history, world)} == {"tables"}
    recorder.close()
