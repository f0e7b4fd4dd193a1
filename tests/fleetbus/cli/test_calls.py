"""``fleetbus call``: replies, refusals, keys, silence."""

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import pytest
from nats.aio.msg import Msg

from bus.kit.ids import uuid7
from bus.kit.nats_io import flush
from contracts.planning.projects import CreateProject, Project
from fleetbus.client import Bus
from tests.bus.asking import asking
from tests.fleetbus.cli.program import fleetbus, one_line, started

PROJECT: dict[str, Any] = {"name": "search", "url": "https://git.example.org/search.git"}


class TestReply:
    async def test_is_indented_json(self, bus: Bus, nats_url: str) -> None:
        project = await bus.call(CreateProject(**PROJECT))
        request = json.dumps({"id": str(project.id)})
        ended = await fleetbus("call", "db.projects.get", request, NATS_URL=nats_url)
        assert (ended.code, ended.err) == (0, "")
        assert Project.model_validate_json(ended.out) == project
        assert '\n  "name": "search"' in ended.out

    async def test_raw_is_byte_for_byte(self, bus: Bus, nats_url: str) -> None:
        body = b'{"limit": 1}'
        expected = (await bus.nats.request("db.projects.list", body, timeout=10)).data.decode()
        ended = await fleetbus(
            "call", "db.projects.list", body.decode(), "--raw", "--nats-url", nats_url
        )
        assert (ended.code, ended.out) == (0, expected + "\n")

    @pytest.mark.usefixtures("service")
    async def test_without_a_request_an_empty_one_is_sent(self, nats_url: str) -> None:
        ended = await fleetbus("call", "db.projects.list", NATS_URL=nats_url)
        assert json.loads(ended.out) == {"items": [], "next_cursor": None}

    @pytest.mark.usefixtures("service")
    async def test_the_request_may_come_from_stdin(self, nats_url: str) -> None:
        ended = await fleetbus(
            "call", "db.projects.create", "-", stdin=json.dumps(PROJECT), NATS_URL=nats_url
        )
        assert ended.code == 0
        assert json.loads(ended.out)["name"] == "search"

    @pytest.mark.usefixtures("service")
    async def test_any_subject_can_be_asked(self, nats_url: str) -> None:
        ended = await fleetbus("call", "$SRV.PING.planning", NATS_URL=nats_url)
        assert json.loads(ended.out)["name"] == "planning"


class TestRefusal:
    @pytest.mark.usefixtures("service")
    async def test_says_title_and_detail(self, nats_url: str) -> None:
        task = uuid7()
        ended = await fleetbus("call", "db.tasks.get", f'{{"id": "{task}"}}', NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == (
            f"refused: 404 task_not_found: There is no such task.\n  task {task} does not exist\n"
        )

    @pytest.mark.usefixtures("service")
    async def test_names_each_wrong_field(self, nats_url: str) -> None:
        request = '{"name": 5, "nonsense": 1}'
        ended = await fleetbus("call", "db.projects.create", request, NATS_URL=nats_url)
        assert ended.code == 1
        lines = ended.err.splitlines()
        assert lines[0].startswith("refused: 400 invalid_request: ")
        assert {line.split(":")[0] for line in lines[1:]} == {"  name", "  url", "  nonsense"}

    @pytest.mark.usefixtures("service")
    async def test_raw_is_the_problem_document(self, nats_url: str) -> None:
        request = f'{{"id": "{uuid7()}"}}'
        ended = await fleetbus("call", "db.tasks.get", request, "--raw", NATS_URL=nats_url)
        assert ended.code == 1
        assert json.loads(ended.out)["type"] == "task_not_found"

    @pytest.mark.usefixtures("service")
    async def test_an_unknown_operation_has_neighbours(self, nats_url: str) -> None:
        ended = await fleetbus("call", "db.task.get", NATS_URL=nats_url)
        assert ended.code == 1
        assert ended.err.startswith("there is no operation db.task.get; did you mean db.tasks.get")

    @pytest.mark.usefixtures("service")
    @pytest.mark.parametrize(
        ("subject", "near"),
        [
            ("events.list", "; did you mean db.events.list?"),
            ("tasks.claim", "; did you mean db.tasks.claim?"),
            ("events.task.completed.1", "; did you mean db.tasks.complete?"),
            ("_fleetbus.outbox", ""),
            ("$JS.API.STREAM.PURGE.EVENTS", ""),
        ],
    )
    async def test_what_is_no_operation_is_not_sent(
        self, subject: str, near: str, bus: Bus, nats_url: str
    ) -> None:
        watched = await bus.nats.subscribe(subject)
        ended = await fleetbus("call", subject, NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == f"there is no operation {subject}{near}\n"
        await flush(bus.nats)
        assert watched.pending_msgs == 0

    async def test_no_handlers(self, nats_url: str) -> None:
        ended = await fleetbus("call", "db.tasks.get", "--timeout", "0.5", NATS_URL=nats_url)
        assert ended.code == 3
        assert "trying again for 0.5 s" in ended.err
        assert "nobody answers db.tasks.get: no handler process is connected" in ended.err
        assert "fleetbus serve" in ended.err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("db.tasks.get", "{x"), "this is not JSON"),
            (("db.tasks.*",), "without wildcards"),
            (("db..get",), "words with dots between"),
            (("db.tasks.get", "--timeout", "0"), "--timeout"),
        ],
    )
    async def test_wrong_usage(self, arguments: tuple[str, ...], said: str, nats_url: str) -> None:
        ended = await fleetbus("call", *arguments, NATS_URL=nats_url)
        assert (ended.code, ended.out) == (2, "")
        assert said in one_line(ended.err)


class TestKey:
    @pytest.mark.usefixtures("service")
    async def test_the_same_key_is_done_once(self, nats_url: str) -> None:
        arguments = ("call", "db.projects.create", json.dumps(PROJECT), "--key", str(uuid4()))
        first = await fleetbus(*arguments, NATS_URL=nats_url)
        again = await fleetbus(*arguments, NATS_URL=nats_url)
        assert (first.code, again.code) == (0, 0)
        assert first.out == again.out
        assert (first.err, again.err.split(":")[0]) == ("", "replayed")

    @pytest.mark.usefixtures("service")
    async def test_a_dry_run_stores_nothing(self, nats_url: str) -> None:
        ended = await fleetbus(
            "call", "db.projects.create", json.dumps(PROJECT), "--dry-run", NATS_URL=nats_url
        )
        assert (ended.code, ended.err) == (0, "dry run: nothing was stored\n")
        assert json.loads(ended.out)["name"] == "search"
        listed = await fleetbus("call", "db.projects.list", NATS_URL=nats_url)
        assert json.loads(listed.out)["items"] == []


class TestPatience:
    async def test_what_may_be_tried_again_is(self, bus: Bus, nats_url: str) -> None:
        requests: list[Msg] = []

        async def answer(message: Msg) -> None:
            requests.append(message)
            if len(requests) == 1:
                problem = {"type": "overloaded", "retryable": True, "retry_after_ms": 10}
                headers = {"Nats-Service-Error-Code": "429", "Nats-Service-Error": "later"}
                await bus.nats.publish(message.reply, json.dumps(problem).encode(), headers=headers)
            else:
                await message.respond(b'{"done": true}')

        await bus.nats.subscribe("db.probe.do", cb=answer)
        ended = await fleetbus("call", "db.probe.do", NATS_URL=nats_url)
        assert (ended.code, json.loads(ended.out)) == (0, {"done": True})
        keys = {(message.headers or {})["Nats-Msg-Id"] for message in requests}
        assert (len(requests), len(keys)) == (2, 1)

    async def test_a_refusal_to_the_end_is_told(self, bus: Bus, nats_url: str) -> None:
        async def refuse(message: Msg) -> None:
            problem = {"type": "unavailable", "title": "It is gone.", "retryable": True}
            headers = {"Nats-Service-Error-Code": "503", "Nats-Service-Error": "gone"}
            await bus.nats.publish(message.reply, json.dumps(problem).encode(), headers=headers)

        await bus.nats.subscribe("db.probe.do", cb=refuse)
        ended = await fleetbus("call", "db.probe.do", "--timeout", "0.5", NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("refused: 503 unavailable: It is gone.\n")
        assert "trying again may succeed" in ended.err

    async def test_handlers_that_come_late_are_waited_for(self, nats_url: str) -> None:
        arguments = ("call", "db.probe.do", "--timeout", "30")
        async with asking(nats_url) as ask, started(*arguments, NATS_URL=nats_url) as process:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                assert b"trying again" in await process.stderr.readline()

                async def answer(message: Msg) -> None:
                    await message.respond(b'{"done": true}')

                await ask.client.subscribe("db.probe.do", cb=answer)
                out, _ = await process.communicate()
        assert (process.returncode, json.loads(out)) == (0, {"done": True})

    async def test_silence_ends_at_the_timeout(self, bus: Bus, nats_url: str) -> None:
        deadlines: list[float] = []

        async def ignore(message: Msg) -> None:
            deadlines.append(int((message.headers or {})["Fleet-Deadline"]) / 1000 - time.time())

        await bus.nats.subscribe("db.probe.do", cb=ignore)
        ended = await fleetbus(
            "call", "db.probe.do", "--timeout", "0.4", "--key", "k-1", NATS_URL=nats_url
        )
        assert (ended.code, ended.out) == (3, "")
        assert "no answer from db.probe.do within 0.4 s" in ended.err
        assert "--key k-1" in ended.err
        assert max(deadlines) <= 0.4
