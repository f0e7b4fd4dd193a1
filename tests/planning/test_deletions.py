"""What a deletion tells of what went along is bounded."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import MOST_GONE
from contracts.planning.initiatives import CreateInitiative, DeleteInitiative
from fleetbus.client import Bus
from tests.kit.outbox import Outbox

TASKS = """
    INSERT INTO planning.tasks (id, name, initiative_id)
    SELECT uuidv7(), 'task ' || n, :initiative FROM generate_series(1, :number) AS n
    RETURNING id
"""


async def test_all_are_counted_and_the_first_are_named(
    bus: Bus, db: AsyncConnection, outbox: Outbox
) -> None:
    initiative = await bus.call(CreateInitiative(name="large"))
    values = {"initiative": initiative.id, "number": MOST_GONE + 1}
    ids = sorted((await db.execute(text(TASKS), values)).scalars())

    await bus.call(DeleteInitiative(id=initiative.id))

    data = (await outbox.last("initiative.deleted")).data
    assert data["deleted"] == {"phases": 0, "tasks": MOST_GONE + 1}
    assert data["task_ids"] == [str(id_) for id_ in ids[:MOST_GONE]]
