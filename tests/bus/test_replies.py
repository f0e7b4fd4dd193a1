"""Every request gets exactly one reply, and the reply says what the protocol says it says."""

import asyncio
import json
import logging
import time
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from tests.bus.asking import (
    CREATE,
    NOTE,
    READ,
    Asker,
    Got,
    add_tasks,
    assert_problem,
    column_of,
    eventually,
)
from tests.kit.outbox import Outbox


def fields_of(got: Got) -> set[str]:
    return {error["field"] for error in got.body["errors"]}


class TestSuccess:
    async def test_a_query_answers_with_an_object_and_without_headers(self, ask: Asker) -> None:
        got = await ask(READ, {"sql": ["SELECT 1"]})

        assert (got.status, got.body, got.headers) == (200, {"rows": ["1"]}, {})

    async def test_a_command_that_told_something_names_its_position(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        [task] = await add_tasks(db)

        got = await ask(NOTE, {"id": str(task)})

        assert got.position == str((await outbox.last()).position)
        assert not got.replayed

    async def test_a_command_that_told_nothing_names_no_position(self, ask: Asker) -> None:
        assert (await ask(CREATE, {"name": "quiet"})).position is None

    async def test_an_empty_body_is_an_empty_object(self, ask: Asker) -> None:
        got = await ask("db.meta.operations", b"")

        assert got.status == 200
        assert got.body == (await ask("db.meta.operations", b"{}")).body

    async def test_there_is_exactly_one_reply(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        inbox = ask.client.new_inbox()
        replies = await ask.client.subscribe(inbox)
        bodies = [b"{", b"[]", b"{}", json.dumps({"id": str(task)}).encode()]

        for body in bodies:
            await ask.client.publish(NOTE, body, reply=inbox)
        for _ in bodies:
            await replies.next_msg(timeout=5)
        assert (await ask(NOTE, {"id": str(task)})).status == 200

        assert replies.pending_msgs == 0


class TestInvalidRequest:
    @pytest.mark.parametrize(
        "body", [b"{", b"nonsense", b"\xff\xfe{}", b'{"id": "\\ud800"}', b"[1]", b'"x"', b"null"]
    )
    async def test_what_is_no_json_object_is_400(self, ask: Asker, body: bytes) -> None:
        got = await ask(NOTE, body)

        assert_problem(got, 400, "invalid_request")
        assert got.body["errors"][0]["message"]

    async def test_each_wrong_field_is_named(self, ask: Asker) -> None:
        got = await ask(NOTE, {"id": "no uuid", "how": "sideways", "colour": "red"})

        assert_problem(got, 400, "invalid_request")
        assert fields_of(got) == {"id", "how", "colour"}

    async def test_a_missing_field_is_named(self, ask: Asker) -> None:
        assert fields_of(await ask(NOTE, {})) == {"id"}

    async def test_an_item_of_a_list_is_named_by_its_path(self, ask: Asker) -> None:
        assert fields_of(await ask(READ, {"sql": ["SELECT 1", 2]})) == {"sql.1"}

    async def test_nothing_is_converted_silently(self, ask: Asker) -> None:
        got = await ask(NOTE, {"id": str(uuid7()), "note": 5})

        assert fields_of(got) == {"note"}

    async def test_a_thousand_wrong_fields_are_answered_with_the_first_of_them(
        self, ask: Asker
    ) -> None:
        got = await ask(NOTE, {f"x{n}": n for n in range(1_000)})

        assert_problem(got, 400, "invalid_request")
        assert len(got.body["errors"]) == 20

    async def test_as_many_as_fit_do_not_stop_the_process_for_long(self, ask: Asker) -> None:
        body = {f"x{n}": 1 for n in range(75_000)}

        # CPU time, of this process with the service in it: others on the machine do not count.
        started = time.process_time()
        got = await ask(NOTE, body)

        assert (got.status, len(got.body["errors"])) == (400, 20)
        assert time.process_time() - started < 1

    async def test_a_line_break_in_a_field_name_does_not_break_the_header(self, ask: Asker) -> None:
        got = await ask(NOTE, {"id": str(uuid7()), "evil\r\nFleet-Replayed: true\u2028\x00é": 1})

        assert_problem(got, 400, "invalid_request")
        assert not got.replayed

    async def test_a_long_detail_is_cut_in_the_header_only(self, ask: Asker) -> None:
        got = await ask(NOTE, {"id": str(uuid7()), "f" * 1_000: 1})

        assert_problem(got, 400, "invalid_request")
        assert len(got.headers["Nats-Service-Error"]) == 200
        assert len(got.body["detail"]) >= 200

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Fleet-Deadline", "tomorrow"),
            ("Fleet-Deadline", "-5"),
            ("Fleet-Deadline", "1e12"),
            ("Fleet-Deadline", "9" * 400),
            ("Fleet-Dry-Run", "perhaps"),
            ("Nats-Msg-Id", "k" * 201),
        ],
    )
    async def test_a_header_that_cannot_be_used_is_400(
        self, ask: Asker, db: AsyncConnection, name: str, value: str
    ) -> None:
        [task] = await add_tasks(db)

        got = await ask(NOTE, {"id": str(task)}, headers={name: value})

        assert_problem(got, 400, "invalid_request")
        assert fields_of(got) == {name}
        assert await column_of(db, "summary", task) is None


class TestWithoutReplySubject:
    async def test_a_command_runs(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        await ask.send(NOTE, {"id": str(task), "note": "done"})

        await eventually(lambda: _is(db, task, "done"))

    async def test_a_refusal_goes_to_the_log(
        self, ask: Asker, caplog: pytest.LogCaptureFixture
    ) -> None:
        missing = str(uuid7())

        with caplog.at_level(logging.WARNING, "fleetbus.wire"):
            await ask.send(NOTE, {"id": missing})
            await eventually(lambda: missing in caplog.text)

        assert "404 task_not_found" in caplog.text

    async def test_with_one_that_is_no_inbox_it_does_not_run_and_disturbs_nobody(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        body = json.dumps({"id": str(task)}).encode()

        for reply in (".", "a..b", "x.*", ">", "$SYS.REQ.USER.INFO", "é", "r" * 4_000):
            await ask.client._send_publish(NOTE, reply, body, len(body), None)
        await ask.client.flush()

        assert (await ask(NOTE, {"id": str(task), "note": "once"})).status == 200
        assert await _is(db, task, "once")


async def _is(db: AsyncConnection, task: UUID, summary: str) -> bool:
    return bool(await column_of(db, "summary", task) == summary)


class TestConcurrently:
    async def test_a_mixture_of_requests_is_answered_each_with_its_own(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        tasks = await add_tasks(db, 40)
        wanted = [(task, how) for task in tasks for how in ("change", "refuse", "raise")]

        replies = await asyncio.gather(
            *(ask(NOTE, {"id": str(task), "how": how, "note": how}) for task, how in wanted)
        )

        statuses = {"change": 200, "refuse": 409, "raise": 500}
        for (task, how), got in zip(wanted, replies, strict=True):
            assert got.status == statuses[how]
            assert got.status != 200 or got.body["id"] == str(task)
