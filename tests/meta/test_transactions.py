"""Several commands in one request, through the client and against what is published of it."""

import json
from typing import Any

import jsonschema
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.several import GivenCommand, NotTransactional
from bus.kit.ids import uuid7
from contracts.meta.meta import DescribeOperation, ListOperations
from contracts.meta.transactions import ExecuteTransaction
from contracts.planning.tasks import TaskNotFound
from fleetbus.client import Bus
from tests.bus.asking import count_of
from tests.kit.outbox import Outbox

EXECUTE = "db.transactions.execute"


class TestExecuteTransaction:
    async def test_a_plan_comes_whole(self, bus: Bus, outbox: Outbox) -> None:
        plan, phase, task = (str(uuid7()) for _ in range(3))
        within = {"initiative_id": plan}

        answered = await bus.request(
            ExecuteTransaction(
                operations=[
                    _given("db.initiatives.create", id=plan, name="a"),
                    _given("db.phases.create", id=phase, name="b", **within),
                    _given("db.tasks.create", id=task, name="c", phase_id=phase, **within),
                ]
            )
        )

        assert [reply["id"] for reply in answered.reply.replies] == [plan, phase, task]
        told = await outbox.all()
        assert [row.type for row in told][:3] == [
            "initiative.created",
            "phase.created",
            "task.created",
        ]
        assert answered.position == told[-1].position

    async def test_nothing_comes_of_a_part(self, bus: Bus, db: AsyncConnection) -> None:
        with pytest.raises(TaskNotFound) as refused:
            await bus.call(
                ExecuteTransaction(
                    operations=[
                        _given("db.tasks.create", name="a"),
                        _given("db.tasks.update", id=str(uuid7()), name="b"),
                    ]
                )
            )

        assert refused.value.operation == 1
        assert await count_of(db, "planning.tasks") == 0

    async def test_a_query_stands_in_none(self, bus: Bus) -> None:
        with pytest.raises(NotTransactional) as refused:
            await bus.call(ExecuteTransaction(operations=[_given("db.tasks.list")]))

        assert refused.value.detail.startswith("db.tasks.list is a query")

    async def test_reply_and_failure_are_as_described(self, bus: Bus) -> None:
        told = await bus.call(DescribeOperation(subject=EXECUTE))
        [failure] = [error.body for error in told.errors if error.type == "not_transactional"]

        done = await _ask(bus, _given("db.tasks.create", name="a"))
        failed = await _ask(bus, _given("db.tasks.list"))

        jsonschema.validate(done, told.reply)
        jsonschema.validate(failed, failure)
        assert (failed["operation"], failed["subject"]) == (0, "db.tasks.list")

    async def test_the_catalogue_says_what_stands_in_one(self, bus: Bus) -> None:
        page = await bus.call(ListOperations())
        said = {item.subject: item.transactional for item in page.items}

        assert said["db.tasks.create"]
        assert not said["db.tasks.get"]
        assert not said["db.agents.heartbeat"]
        assert not said[EXECUTE]


def _given(subject: str, **body: Any) -> GivenCommand:
    return GivenCommand(subject=subject, body=body)


async def _ask(bus: Bus, *given: GivenCommand) -> Any:
    request = ExecuteTransaction(operations=list(given))
    answer = await bus.nats.request(EXECUTE, request.model_dump_json().encode(), timeout=10)
    return json.loads(answer.data)
