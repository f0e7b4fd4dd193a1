"""First versions of entities, and many decisions carried out at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Event
from bus.handling import Decision, carry_out
from bus.kit.ids import uuid7
from bus.running.transaction import begin
from bus.storage import add, load
from contracts.planning.projects import Project, ProjectUpdated
from contracts.planning.tasks import Task, TaskRetried, TaskUpdated
from fleetbus.server.service import Service
from tests.bus.asking import add_tasks
from tests.counting import Counted

NOW = datetime(2026, 1, 1, tzinfo=UTC)

VALUES: dict[str, Any] = {
    "name": "parser",
    "url": "https://example.org/parser",
    "default_branch": "main",
    "description": None,
    "last_fetched_at": None,
    "archived_at": None,
}


class TestFirst:
    def test_is_version_1_of_now(self) -> None:
        id_ = uuid7()
        project = Project.first(id=id_, now=NOW, **VALUES)
        assert (project.id, project.version) == (id_, 1)
        assert project.created_at == project.updated_at == NOW
        assert project.origin is None
        assert Project.model_validate_json(project.encoded()) == project

    def test_its_json_is_in_the_order_of_the_contract(self) -> None:
        project = Project.first(id=uuid7(), now=NOW, **dict(reversed(VALUES.items())))
        assert list(project.model_dump()) == list(Project.model_fields)

    def test_a_missing_field_is_an_error(self) -> None:
        values = {name: value for name, value in VALUES.items() if name != "url"}
        with pytest.raises(TypeError, match=r"Project\.first needs url"):
            Project.first(id=uuid7(), now=NOW, **values)

    @pytest.mark.parametrize("name", ["colour", "version", "created_at"])
    def test_a_field_that_it_does_not_take_is_an_error(self, name: str) -> None:
        with pytest.raises(TypeError, match=rf"Project\.first takes no {name}"):
            Project.first(id=uuid7(), now=NOW, **VALUES, **{name: 2})


class TestCarryOut:
    async def test_saves_what_changed_by_kind_and_emits_in_order(
        self,
        db: AsyncConnection,
        service: Service,
        statements: Callable[[], AbstractContextManager[Counted]],
    ) -> None:
        """Of decisions with no event, with one and with two; one changes nothing."""
        ids = await add_tasks(db, 3)
        project = Project.first(id=uuid7(), now=NOW, **VALUES)
        await add(db, [project])
        found = await load(db, Task, ids)
        one, two, three = (found[id_] for id_ in ids)
        changed = [task.evolve(NOW, summary="new") for task in (one, two)]
        renamed = project.evolve(NOW, name="lexer")
        told: list[Event] = [
            TaskUpdated(task=changed[0]),
            ProjectUpdated(project=renamed),
            TaskUpdated(task=changed[1]),
            TaskRetried(task=changed[1]),
        ]
        decisions: list[Decision[Any]] = [
            Decision(changed[0], told[0]),
            Decision(renamed, told[1]),
            Decision.unchanged(three),
            Decision(changed[1], *told[2:]),
        ]

        emitted: list[Event] = []
        with statements() as counted:
            async with begin(service.database, left=lambda: 10) as tx:
                await carry_out(decisions, db=tx.db, emit=emitted.append)
                await tx.commit()

        assert emitted == told
        assert counted.total == 2
        after = await load(db, Task, ids)
        assert [after[id_].version for id_ in ids] == [one.version + 1, two.version + 1, 1]
        assert (await load(db, Project, [project.id]))[project.id].name == "lexer"

    async def test_of_nothing_is_nothing(
        self, service: Service, statements: Callable[[], AbstractContextManager[Counted]]
    ) -> None:
        emitted: list[Event] = []
        with statements() as counted:
            async with begin(service.database, left=lambda: 10) as tx:
                await carry_out([], db=tx.db, emit=emitted.append)
        assert (emitted, counted.total) == ([], 0)
