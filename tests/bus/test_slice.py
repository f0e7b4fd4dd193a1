import pytest
from sqlalchemy import text
from contracts.planning.tasks import CompleteTask, GetTask, TaskNotFound, TaskCompleted
from fleetbus.ids import uuid7


async def test_slice(bus, db, outbox, statements):
    i = uuid7()
    await db.execute(text("insert into planning.tasks(id,name,status,attempt) values(:i,'x','in_progress',1)"), {"i": i})
    async with bus.events(TaskCompleted) as events:
        with statements() as counted:
            t = await bus.call(CompleteTask(id=i, attempt=1, summary="s"))
        print(counted.texts)
        assert t.status == "completed"
        e = await events.delivery()
        print(e)
        assert e.event.task == t
    print(await outbox())
    with statements() as counted:
        assert await bus.call(GetTask(id=i)) == t
    assert counted.total == 1
    with pytest.raises(TaskNotFound):
        await bus.call(GetTask(id=uuid7()))
    async for e in bus.events(TaskCompleted, durable="x"):
        assert e.task == t
        break
