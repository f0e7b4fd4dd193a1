"""Several commands in one transaction: all of them, and one answer."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from fleetbus.server.service import Service
from tests.bus.asking import (
    CREATE,
    NOTE,
    RUN,
    Asker,
    add_tasks,
    assert_problem,
    column_of,
    count_of,
)
from tests.bus.together import EXECUTE, Step, assert_of, execute, kept, note
from tests.kit.outbox import Outbox


class TestAllOfThem:
    async def test_each_sees_what_those_before_did(self, ask: Asker, outbox: Outbox) -> None:
        project = str(uuid7())
        url = "https://example.org/a.git"

        got = await execute(
            ask,
            ("db.projects.create", {"id": project, "name": "a", "url": url}),
            ("db.projects.update", {"id": project, "description": "b"}),
            ("db.projects.archive", {"id": project}),
            key="k",
        )

        assert got.status == 200, got.body
        assert [reply["version"] for reply in got.body["replies"]] == [1, 2, 3]
        alone = await ask("db.projects.get", {"id": project})
        assert got.body["replies"][-1] == alone.body
        told = await outbox.all()
        assert [row.type for row in told] == [
            "project.created",
            "project.updated",
            "project.archived",
        ]
        assert [row.data["project"] for row in told] == got.body["replies"]
        assert {row.cause for row in told} == {"k"}
        assert got.position == str(told[-1].position)

    async def test_each_reply_is_as_it_is_alone(self, ask: Asker, db: AsyncConnection) -> None:
        """A decider, a handler and a gathered handler, byte for byte."""
        [task] = await add_tasks(db)
        await ask("db.tasks.create", {"name": "a"})
        bodies: list[Step] = [
            note(task, how="keep"),
            (RUN, {"sql": ["SELECT 1.0"]}),
            ("db.tasks.claim", {"agent_id": "nobody", "categories": ["review"]}),
        ]
        alone = [(await ask(*step)).data for step in bodies]

        got = await execute(ask, *bodies)

        assert got.data == b'{"replies":[' + b",".join(alone) + b"]}"

    async def test_it_is_one_transaction(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 3)

        assert (await execute(ask, *(note(task) for task in tasks), key="k")).status == 200

        writers = """
            SELECT DISTINCT w.xid FROM (
                SELECT xmin::text AS xid FROM planning.tasks UNION ALL
                SELECT xmin::text FROM bus.outbox UNION ALL SELECT xmin::text FROM bus.requests
            ) AS w
        """
        assert len((await db.execute(text(writers))).all()) == 1

    async def test_what_follows_follows_once_at_the_end(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        first, second = [str(task) for task in await add_tasks(db, 2)]
        waits = str(uuid7())
        await ask("db.tasks.create", {"id": waits, "name": "c"})
        for other in (first, second):
            await ask("db.tasks.add_dependency", {"id": waits, "depends_on_task_id": other})
        before = await outbox.count()

        got = await execute(
            ask,
            ("db.tasks.complete", {"id": first}),
            ("db.tasks.complete", {"id": second}),
            ("db.tasks.update", {"id": first, "name": "d"}),
        )

        assert got.status == 200, got.body
        assert [(row.type, row.entity_id) for row in (await outbox.all())[before:]] == [
            ("task.completed", first),
            ("task.completed", second),
            ("task.updated", first),
            ("task.ready", waits),
        ]

    @pytest.mark.own_service
    async def test_it_counts_as_one_request(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        [task] = await add_tasks(db)

        await execute(ask, note(task), note(task))

        stats = service.dispatcher.stats.operations
        assert (stats[EXECUTE].requests, stats[NOTE].requests) == (1, 0)

    async def test_a_hundred_and_no_more(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        assert (await execute(ask, *[note(task)] * 100)).status == 200
        assert await column_of(db, "version", task) == 101
        for wrong in ([], [note(task)] * 101):
            assert_problem(await execute(ask, *wrong), 400, "invalid_request")


class TestRepetition:
    async def test_a_key_stands_for_all(self, ask: Asker, db: AsyncConnection) -> None:
        one, other = await add_tasks(db, 2)

        first = await execute(ask, note(one), note(other), key="k")
        again = await execute(ask, note(one), note(other), key="k")
        reused = await execute(ask, note(one), key="k")

        assert (again.data, again.replayed, again.position) == (first.data, True, first.position)
        assert_problem(reused, 409, "idempotency_key_reused")
        assert await count_of(db, "bus.outbox") == 2

    async def test_at_once_it_is_done_once(self, ask: Asker, db: AsyncConnection) -> None:
        one, other = await add_tasks(db, 2)

        got = await asyncio.gather(
            *(execute(ask, note(one), note(other), key="k") for _ in range(5))
        )

        assert {reply.data for reply in got} == {got[0].data}
        assert await column_of(db, "version", one) == 2

    async def test_what_failed_may_be_tried_again(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        late = uuid7()
        steps = note(task), note(late)

        assert (await execute(ask, *steps, key="k")).status == 404
        await db.execute(
            text("INSERT INTO planning.tasks (id, name) VALUES (:id, 'late')"), {"id": late}
        )

        assert (await execute(ask, *steps, key="k")).status == 200


class TestDryRun:
    async def test_answers_as_if(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await execute(
            ask, note(task), note(task), (CREATE, {"name": "a"}), key="k", dry_run=True
        )

        assert [reply["version"] for reply in got.body["replies"]] == [2, 3, 1]
        assert got.position is None
        assert await kept(db) == [0, 0, 0]
        assert await column_of(db, "version", task) == 1

    async def test_fails_as_it_would(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await execute(ask, note(task), note(task, how="refuse"), dry_run=True)

        assert_of(got, 409, "probe_refused", 1, NOTE)


class TestValidation:
    async def test_every_wrong_field_is_named_before_anything_is_done(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        got = await execute(
            ask,
            (CREATE, {"name": "a"}),
            (CREATE, {}),
            ("db.tasks.create", {"name": "a", "priority": "soon", "wat": 1}),
        )

        assert_problem(got, 400, "invalid_request")
        assert [error["field"] for error in got.body["errors"]] == [
            "operations.1.body.name",
            "operations.2.body.priority",
            "operations.2.body.wat",
        ]
        assert await kept(db) == [0, 0, 0]

    async def test_a_body_means_what_it_means_alone(self, ask: Asker) -> None:
        """Also where JSON says more than one thing may mean: no value changes on its way."""
        values = '{"id": "x", "n": [1e3, 1.0, -0.0, 12345678901234567890123, "\\u00e9", null]}'
        raw = f'{{"name": "a", "execution_mode": {values}}}'
        alone = await ask("db.initiatives.create", raw.encode())
        request = f'{{"operations":[{{"subject":"db.initiatives.create","body":{raw}}}]}}'

        got = await ask(EXECUTE, request.encode())

        expected = [
            error | {"field": f"operations.0.body.{error['field']}"}
            for error in alone.body["errors"]
        ]
        assert got.body["errors"] == expected

    @pytest.mark.parametrize(
        ("subject", "why"),
        [
            ("db.tasks.wave", "there is no operation"),
            ("nonsense", "there is no operation"),
            ("db.tasks.get", "is a query"),
            ("db.agents.heartbeat", "is vital"),
            ("db.tasks.renew", "is vital"),
            (EXECUTE, "does not stand in a transaction"),
        ],
    )
    async def test_what_cannot_stand_in_one(
        self, ask: Asker, db: AsyncConnection, subject: str, why: str
    ) -> None:
        got = await execute(ask, (CREATE, {"name": "a"}), (subject, {}))

        assert_of(got, 400, "not_transactional", 1, subject)
        assert why in got.body["detail"]
        assert await kept(db) == [0, 0, 0]
