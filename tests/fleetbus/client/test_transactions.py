"""A block whose commands take effect together."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidRequest
from bus.contract.operation import Command
from bus.contract.several import NotTransactional
from bus.kit.ids import uuid7
from contracts.agents.agents import Heartbeat
from contracts.planning.initiatives import ArchiveInitiative, CreateInitiative
from contracts.planning.projects import CreateProject, ProjectNotFound, UpdateProject
from contracts.planning.tasks import (
    CreateTask,
    InitiativeClosed,
    Task,
    TaskNotFound,
    UpdateTask,
)
from fleetbus.client import Bus, NoAnswer, Planned, connect
from tests.bus.asking import add_tasks, count_of
from tests.kit.outbox import Outbox

URL = "https://example.org/a.git"


async def together(bus: Bus, *commands: Command[Any], **how: Any) -> list[Planned[Any]]:
    """Some commands in one transaction."""
    async with bus.transaction(**how) as tx:
        return [tx.call(command) for command in commands]


class TestTransaction:
    async def test_replies_are_there_after_the_block(self, bus: Bus, outbox: Outbox) -> None:
        project, task = uuid7(), uuid7()

        async with bus.transaction() as tx:
            created = tx.call(CreateProject(id=project, name="a", url=URL))
            updated = tx.call(UpdateProject(id=project, description="b"))
            made = tx.call(CreateTask(id=task, name="c"))
            with pytest.raises(RuntimeError, match="before the block"):
                _ = made.reply
            assert await outbox.all() == []

        assert (created.reply.version, updated.reply.version) == (1, 2)
        assert type(made.reply) is Task
        assert made.reply.id == task
        told = await outbox.all()
        assert [row.type for row in told] == ["project.created", "project.updated", "task.created"]
        assert tx.position == told[-1].position

    async def test_what_is_not_said_is_not_sent(self, bus: Bus) -> None:
        """A field that is left out is not the same as one that is null."""
        project = await bus.call(CreateProject(name="a", url=URL, description="b"))

        async with bus.transaction() as tx:
            kept = tx.call(UpdateProject(id=project.id, name="c"))
            emptied = tx.call(UpdateProject(id=project.id, description=None))

        assert (kept.reply.description, emptied.reply.description) == ("b", None)

    async def test_an_exception_sends_nothing(self, bus: Bus, db: AsyncConnection) -> None:
        async def fail() -> None:
            async with bus.transaction() as tx:
                tx.call(CreateTask(name="a"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()

        assert await count_of(db, "bus.requests") == 0
        assert await count_of(db, "planning.tasks") == 0

    async def test_an_empty_block_sends_nothing(self, bus: Bus, db: AsyncConnection) -> None:
        async with bus.transaction() as tx:
            pass

        assert tx.position is None
        assert await count_of(db, "bus.requests") == 0

    async def test_a_failure_is_that_of_its_command(self, bus: Bus, db: AsyncConnection) -> None:
        missing = uuid7()

        with pytest.raises(ProjectNotFound) as refused:
            await together(bus, CreateTask(name="a"), UpdateProject(id=missing, name="b"))

        assert (refused.value.operation, refused.value.id) == (1, missing)
        assert await count_of(db, "planning.tasks") == 0

    async def test_one_that_is_of_no_command_is_known_too(self, bus: Bus) -> None:
        plan = await bus.call(CreateInitiative(name="a"))
        await bus.call(ArchiveInitiative(id=plan.id))

        with pytest.raises(InitiativeClosed) as refused:
            await together(bus, *[CreateTask(name="a", initiative_id=plan.id)] * 2)

        assert refused.value.operation is None

    async def test_what_stands_in_none(self, bus: Bus) -> None:
        with pytest.raises(NotTransactional) as refused:
            await together(bus, CreateTask(name="a"), Heartbeat(id=uuid7(), incarnation=1))

        assert refused.value.operation == 1

    async def test_what_is_invalid_only_there(self, bus: Bus) -> None:
        """A field that the service knows better than the class: it says where."""
        wrong = CreateTask.model_construct({"name"}, name="")

        with pytest.raises(InvalidRequest) as refused:
            await together(bus, CreateTask(name="a"), wrong)

        assert [error.field for error in refused.value.errors] == ["operations.1.body.name"]

    async def test_a_dry_run_leaves_nothing(self, bus: Bus, db: AsyncConnection) -> None:
        [made] = await together(bus, CreateTask(name="a"), dry_run=True)

        assert made.reply.name == "a"
        assert await count_of(db, "planning.tasks") == 0

    async def test_with_its_key_it_is_done_once(self, bus: Bus, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        for _ in range(2):
            [updated] = await together(bus, UpdateTask(id=task, name="b"), key="k")
            assert updated.reply.version == 2

    async def test_nobody_answers(self, nats_url: str) -> None:
        async with connect(nats_url) as alone:
            with pytest.raises(NoAnswer):
                await together(alone, CreateTask(name="a"), timeout=0.2)


def test_a_refusal_alone_is_of_no_command() -> None:
    refusal = TaskNotFound(id=uuid7())

    assert refusal.operation is None
    assert "operation" not in refusal.problem()


def test_where_it_stood_survives_the_wire() -> None:
    problem = TaskNotFound(id=uuid7()).of(3, "db.tasks.update").problem()

    refusal = TaskNotFound.from_problem(problem)

    assert (refusal.operation, refusal.problem()) == (3, problem)
