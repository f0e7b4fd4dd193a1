"""A dry run answers as if, and leaves no trace."""

from sqlalchemy.ext.asyncio import AsyncConnection

from tests.bus.asking import CREATE, NOTE, RUN, Asker, add_tasks, column_of, count_of

KEPT = ("bus.outbox", "bus.requests", "planning.projects")


async def kept(db: AsyncConnection) -> list[int]:
    return [await count_of(db, table) for table in KEPT]


class TestDryRun:
    async def test_a_decider_answers_as_if(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await ask(NOTE, {"id": str(task), "note": "maybe"}, dry_run=True)

        assert (got.status, got.body["summary"], got.body["version"]) == (200, "maybe", 2)
        assert got.position is None
        assert await column_of(db, "version", task) == 1
        assert await kept(db) == [0, 0, 0]

    async def test_a_creation_answers_as_if(self, ask: Asker, db: AsyncConnection) -> None:
        got = await ask(CREATE, {"name": "maybe"}, dry_run=True)

        assert got.body["name"] == "maybe"
        assert await kept(db) == [0, 0, 0]
        assert (await ask(CREATE, {"name": "maybe"})).status == 200

    async def test_a_handler_answers_as_if(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        sql = f"UPDATE planning.tasks SET summary = 'maybe' WHERE id = '{task}' RETURNING summary"

        got = await ask(RUN, {"sql": [sql], "task": str(task)}, dry_run=True)

        assert (got.body["rows"], got.position) == (["maybe"], None)
        assert await column_of(db, "summary", task) is None
        assert await kept(db) == [0, 0, 0]

    async def test_its_key_is_not_kept(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        body = {"id": str(task), "note": "now"}

        first = await ask(NOTE, body, key="k", dry_run=True)
        assert await kept(db) == [0, 0, 0]
        second = await ask(NOTE, body, key="k")

        assert (first.replayed, second.replayed) == (False, False)
        assert await column_of(db, "summary", task) == "now"

    async def test_what_has_run_already_is_answered_with_its_reply(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        body = {"id": str(task), "note": "now"}

        first = await ask(NOTE, body, key="k")
        second = await ask(NOTE, body, key="k", dry_run=True)

        assert (second.data, second.replayed) == (first.data, True)

    async def test_a_refusal_is_the_same(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        body = {"id": str(task), "how": "refuse_and_keep"}

        got = await ask(NOTE, body, dry_run=True)

        assert (got.status, got.position) == (409, None)
        assert await column_of(db, "version", task) == 1
        assert await kept(db) == [0, 0, 0]

    async def test_a_constraint_refuses_as_it_would(self, ask: Asker) -> None:
        await ask(CREATE, {"name": "taken"})

        assert (await ask(CREATE, {"name": "taken"}, dry_run=True)).status == 409

    async def test_false_is_no_dry_run(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        await ask(NOTE, {"id": str(task), "note": "now"}, headers={"Fleet-Dry-Run": "false"})

        assert await column_of(db, "summary", task) == "now"

    async def test_among_many_others_only_it_leaves_no_trace(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        from asyncio import gather

        tasks = await add_tasks(db, 30)

        replies = await gather(
            *(ask(NOTE, {"id": str(t)}, dry_run=n % 3 == 0) for n, t in enumerate(tasks))
        )

        assert {got.status for got in replies} == {200}
        versions = [await column_of(db, "version", task) for task in tasks]
        assert versions == [1 if n % 3 == 0 else 2 for n in range(30)]
        assert await count_of(db, "bus.outbox") == 20
