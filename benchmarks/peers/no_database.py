"""fleetbus without a database: every request goes the whole way, and its answer is made up."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from benchmarks.peers._serving import NATS_URL, serve
from benchmarks.workloads import DESCRIPTION, SUMMARY
from bus.kit.ids import uuid7
from bus.running.calls import Answer, Call
from bus.running.dispatcher import Dispatcher
from bus.running.executor import Executor
from bus.running.registry import Registry
from bus.storage.database import Database
from contracts.planning.tasks import Task
from fleetbus import domain
from fleetbus.server.wire.broker import Wire

SUBJECTS = ("db.tasks.get", "db.tasks.complete")

NOW = datetime.now(UTC)
FILLED = {
    "id": uuid7(), "version": 2, "created_at": NOW, "updated_at": NOW, "name": "Task 1",
    "description": DESCRIPTION, "type": "auto", "category": "execute", "priority": "medium",
    "status": "completed", "position": 0, "summary": SUMMARY, "retry_count": 0, "attempt": 1,
    "late_results": [],
}  # fmt: skip
TASK = Task.model_validate(dict.fromkeys(Task.model_fields) | FILLED)


class NoDatabase(Executor):
    """An executor that makes up its answers."""

    async def run_lookups(self, calls: Sequence[Call], _: Callable[[], None]) -> Sequence[Call]:
        for call in calls:
            call.answer(Answer(200, call.bound.serializer.to_json(TASK)))
        return ()

    async def run_batch(self, calls: Sequence[Call], _: Callable[[], None]) -> Sequence[Call]:
        for number, call in enumerate(calls):
            body = call.bound.serializer.to_json(TASK)
            call.answer(Answer(200, body, position=number))
        return ()


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    registry = domain.registry()
    operations = {subject: registry.operations[subject] for subject in SUBJECTS}
    executor = NoDatabase(registry, Database("postgresql://nobody@127.0.0.1/none"))
    dispatcher = Dispatcher(Registry(registry.catalogue, operations, {}), executor)
    wire = Wire(NATS_URL)
    await wire.connect()
    await wire.serve(dispatcher)
    yield
    await wire.drain()
    await dispatcher.drained()
    await wire.close()


if __name__ == "__main__":
    serve(service)
