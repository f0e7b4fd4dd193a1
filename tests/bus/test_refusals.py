"""Each row of the error table is reached, and says no more than it should."""

import logging

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from fleetbus.server.service import Service
from tests.bus.asking import (
    CREATE,
    NOTE,
    READ,
    RUN,
    Asker,
    add_tasks,
    assert_problem,
    column_of,
    count_of,
)


class TestRefusals:
    async def test_404_names_the_entity(self, ask: Asker) -> None:
        missing = uuid7()

        got = await ask("db.tasks.get", {"id": str(missing)})

        assert_problem(got, 404, "task_not_found")
        assert got.body["id"] == str(missing)

    async def test_404_of_a_command_names_the_entity(self, ask: Asker) -> None:
        assert_problem(await ask(NOTE, {"id": str(uuid7())}), 404, "task_not_found")

    async def test_409_of_a_state_carries_its_details(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db, status="pending", attempt=0)

        got = await ask("db.tasks.complete", {"id": str(task)})

        assert_problem(got, 409, "invalid_transition")
        assert got.body["from"] == "pending"
        assert got.headers["Nats-Service-Error"] == got.body["detail"]

    async def test_409_of_a_unique_constraint_names_the_field(self, ask: Asker) -> None:
        assert (await ask(CREATE, {"name": "twice"})).status == 200

        got = await ask(CREATE, {"name": "twice"})

        assert_problem(got, 409, "already_exists")
        assert (got.body["entity"], got.body["fields"]) == ("project", "name")

    async def test_422_of_a_foreign_key_names_the_field(self, ask: Asker) -> None:
        sql = "INSERT INTO planning.tasks (id, name, phase_id) VALUES ('{0}', 'x', '{0}')"

        got = await ask(RUN, {"sql": [sql.format(uuid7())]})

        assert_problem(got, 422, "invalid_reference")
        assert (got.body["field"], got.body["entity"]) == ("phase_id", "phase")

    async def test_422_of_a_check_names_the_rule(self, ask: Asker) -> None:
        sql = f"INSERT INTO planning.tasks (id, name, status) VALUES ('{uuid7()}', 'x', 'odd')"

        got = await ask(RUN, {"sql": [sql]})

        assert_problem(got, 422, "constraint_violated")
        assert got.body["constraint"] == "ck_tasks__status"

    async def test_a_refused_handler_leaves_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        sql = f"UPDATE planning.tasks SET summary = 'lost' WHERE id = '{task}'"

        got = await ask(RUN, {"sql": [sql], "task": str(task), "then": "refuse"})

        assert_problem(got, 409, "probe_refused")
        assert await column_of(db, "summary", task) is None
        assert await count_of(db, "bus.outbox") == 0


class TestTooLarge:
    async def test_a_reply_that_does_not_fit_says_how_to_page(self, ask: Asker) -> None:
        got = await ask(READ, {"sql": ["SELECT repeat('x', 1048000)"]})

        assert_problem(got, 413, "reply_too_large")
        assert got.body["bytes"] > got.body["limit"]
        assert "limit" in got.body["advice"]

    async def test_a_reply_that_just_fits_arrives(self, ask: Asker) -> None:
        length = 1024 * 1024 - 4096 - len('{"rows":[""]}')

        fits = await ask(READ, {"sql": [f"SELECT repeat('x', {length})"]})
        too_large = await ask(READ, {"sql": [f"SELECT repeat('x', {length + 1})"]})

        assert (fits.status, too_large.status) == (200, 413)

    async def test_a_decider_whose_entity_does_not_fit_is_rolled_back(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)

        got = await ask(NOTE, {"id": str(task), "how": "huge"}, key="huge")

        assert_problem(got, 413, "entity_too_large")
        assert await column_of(db, "summary", task) is None
        assert [await count_of(db, f"bus.{name}") for name in ("outbox", "requests")] == [0, 0]

    async def test_a_handler_whose_reply_does_not_fit_is_rolled_back(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        sql = f"UPDATE planning.tasks SET summary = 'lost' WHERE id = '{task}'"

        got = await ask(RUN, {"sql": [sql, "SELECT repeat('x', 1048000)"]})

        assert_problem(got, 413, "reply_too_large")
        assert await column_of(db, "summary", task) is None


class TestInternalError:
    @pytest.mark.parametrize(
        ("subject", "body"),
        [
            (RUN, {"sql": [], "then": "raise"}),
            (RUN, {"sql": ["SELECT no_such_column"]}),
            (RUN, {"sql": [], "then": "refuse_undeclared"}),
            (READ, {"sql": [], "then": "raise"}),
            (READ, {"sql": ["SELECT 1/0 AS secret"]}),
            (NOTE, {"how": "raise"}),
        ],
    )
    async def test_a_bug_is_500_and_only_the_log_knows_it(
        self,
        ask: Asker,
        db: AsyncConnection,
        caplog: pytest.LogCaptureFixture,
        subject: str,
        body: dict[str, object],
    ) -> None:
        if subject == NOTE:
            [task] = await add_tasks(db)
            body = body | {"id": str(task)}

        with caplog.at_level(logging.ERROR, "fleetbus.bus"):
            got = await ask(subject, body)

        assert_problem(got, 500, "internal_error")
        [record] = [r for r in caplog.records if got.body["error_id"] in r.getMessage()]
        assert record.exc_info
        assert subject in record.getMessage()
        told = got.data.decode() + str(got.headers)
        for secret in ("secret", "42", "SELECT", "Traceback", "no_such_column", "elsewhere"):
            assert secret not in told.replace(got.body["error_id"], "")

    async def test_a_wrong_value_of_ours_is_no_outage(self, ask: Asker, service: Service) -> None:
        got = await ask(RUN, {"sql": ["SELECT 1 LIMIT :many"], "values": {"many": 2**70}})

        assert_problem(got, 500, "internal_error")
        assert service.database.available
