"""What a call does when the answer is a refusal, comes late, or does not come."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.contract.errors import AlreadyExists, Overloaded, Unavailable
from bus.contract.model import Reply
from bus.contract.operation import Operation
from bus.kit.ids import uuid7
from bus.kit.nats_io import flush
from contracts.planning.projects import CreateProject, GetProject, ProjectNotFound
from fleetbus.client import Bus, NoAnswer, UnknownRefusal, connect

R = TypeVar("R", bound=Reply)

Answering = Callable[[Msg, int], Awaitable[None]]


class Service:
    """Somebody who answers for a subject, and remembers what was asked."""

    def __init__(self, client: Client, answer: Answering) -> None:
        self._client = client
        self._answer = answer
        self.asked: list[Msg] = []

    async def start(self, subject: str) -> None:
        await self._client.subscribe(subject, cb=self._take)
        await flush(self._client)

    async def _take(self, message: Msg) -> None:
        self.asked.append(message)
        await self._answer(message, len(self.asked))


async def refuse(message: Msg, status: int, kind: str, **details: object) -> None:
    problem = {"type": kind, "title": "", "status": status, "detail": "no", **details}
    headers = {"Nats-Service-Error-Code": str(status), "Nats-Service-Error": "no"}
    body = json.dumps(problem).encode()
    await message._client.publish(message.reply, body, headers=headers)


class TestRetries:
    async def test_what_is_shed_is_sent_again_with_its_key(self, nats_url: str) -> None:
        made = {"id": str(uuid7()), "version": 1, "name": "a", "url": "u", "default_branch": "main"}
        times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
        rest = {"description": None, "last_fetched_at": None, "archived_at": None}

        async def answer(message: Msg, asked: int) -> None:
            if asked < 3:
                await refuse(message, 429, "overloaded", in_flight=9, retry_after_ms=1)
            else:
                await message.respond(json.dumps(made | times | rest).encode())

        project, service = await _call(nats_url, answer, CreateProject(name="a", url="u"))

        assert str(project.id) == made["id"]
        assert len(service.asked) == 3
        keys = {(message.headers or {})["Nats-Msg-Id"] for message in service.asked}
        assert len(keys) == 1

    async def test_silence_is_asked_again_with_the_same_key(self, nats_url: str) -> None:
        async def answer(message: Msg, asked: int) -> None:
            if asked == 2:
                await refuse(message, 409, "already_exists", entity="project", fields="name")

        with pytest.raises(AlreadyExists):
            await _call(nats_url, answer, CreateProject(name="a", url="u"))

    async def test_in_the_end_the_last_refusal_is_raised(self, nats_url: str) -> None:
        async def answer(message: Msg, _: int) -> None:
            await refuse(message, 429, "overloaded", in_flight=9, retry_after_ms=1)

        with pytest.raises(Overloaded):
            await _call(nats_url, answer, CreateProject(name="a", url="u"))

    async def test_who_is_to_come_back_too_late_is_refused_at_once(self, nats_url: str) -> None:
        times: list[float] = []

        async def answer(message: Msg, _: int) -> None:
            times.append(time.monotonic())
            await refuse(message, 429, "overloaded", in_flight=9, retry_after_ms=60_000)

        with pytest.raises(Overloaded):
            await _call(nats_url, answer, CreateProject(name="a", url="u"), timeout=30)
        assert len(times) == 1
        assert time.monotonic() - times[0] < 30


class TestRefusals:
    async def test_declared_ones_have_their_class_and_details(self, bus: Bus) -> None:
        unknown = uuid7()
        with pytest.raises(ProjectNotFound) as refused:
            await bus.call(GetProject(id=unknown))
        assert refused.value.id == unknown
        assert str(unknown) in str(refused.value)

    async def test_those_of_a_newer_service_are_told_as_they_are(self, nats_url: str) -> None:
        async def answer(message: Msg, _: int) -> None:
            await refuse(message, 418, "teapot", short="stout")

        with pytest.raises(UnknownRefusal) as refused:
            await _call(nats_url, answer, GetProject(id=uuid7()))
        assert refused.value.body["short"] == "stout"


class TestNobody:
    async def test_without_a_service_it_says_so_in_the_end(self, nats_url: str) -> None:
        async with connect(nats_url, timeout=0.3) as bus:
            with pytest.raises(NoAnswer, match=r"db\.projects\.get"):
                await bus.call(GetProject(id=uuid7()))

    async def test_without_a_server_connecting_fails(self) -> None:
        with pytest.raises(nats.errors.NoServersError):
            async with asyncio.timeout(10), connect("nats://127.0.0.1:1"):
                pytest.fail("there is nothing to connect to")

    async def test_a_dry_run_carries_no_key(self, nats_url: str) -> None:
        async def answer(message: Msg, _: int) -> None:
            await refuse(message, 503, "unavailable", what="nothing here")

        with pytest.raises(Unavailable):
            await _call(nats_url, answer, CreateProject(name="a", url="u"), dry_run=True)


async def _call(
    url: str,
    answer: Answering,
    operation: Operation[R],
    *,
    dry_run: bool = False,
    timeout: float = 1.0,  # noqa: ASYNC109  of the client
) -> tuple[R, Service]:
    other = await nats.connect(url)
    service = Service(other, answer)
    try:
        await service.start(operation.declared.subject)
        async with connect(url, timeout=timeout, attempt_timeout=0.2) as bus:
            return await bus.call(operation, dry_run=dry_run), service
    finally:
        await other.close()
