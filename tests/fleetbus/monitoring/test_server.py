"""HTTP as far as it goes: GET and HEAD, and nothing that holds the process up."""

import asyncio
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from fleetbus.server.monitoring import server
from fleetbus.server.monitoring.server import HttpServer, Response, plain
from tests.fleetbus.monitoring.asking import exchange, get, taken_apart


async def fine() -> Response:
    return plain(HTTPStatus.OK)


async def broken() -> Response:
    raise RuntimeError("on purpose")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    answering = HttpServer({"/fine": fine, "/broken": broken})
    port = await answering.start("127.0.0.1", 0)
    yield port
    await answering.stop()


class TestRequests:
    @pytest.mark.parametrize("path", ["/fine", "/fine?query=1"])
    async def test_get(self, port: int, path: str) -> None:
        got = await get(port, path)
        assert (got.status, got.body) == (200, b"OK\n")
        assert got.headers["Content-Length"] == "3"
        assert got.headers["Connection"] == "close"

    async def test_head_is_get_without_the_body(self, port: int) -> None:
        head, whole = await get(port, "/fine", "HEAD"), await get(port, "/fine")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == whole.headers["Content-Length"]

    async def test_another_method(self, port: int) -> None:
        got = await get(port, "/fine", "POST")
        assert (got.status, got.headers["Allow"]) == (405, "GET, HEAD")

    async def test_another_path(self, port: int) -> None:
        assert (await get(port, "/nowhere")).status == 404

    @pytest.mark.parametrize(
        "request_",
        [b"nonsense\r\n\r\n", b"GET /fine\r\n\r\n", b"GET fine HTTP/1.1\r\n\r\n", b"\xff\r\n\r\n"],
    )
    async def test_what_is_no_request(self, port: int, request_: bytes) -> None:
        assert taken_apart(await exchange(port, request_)).status == 400

    async def test_a_head_that_is_too_large(self, port: int) -> None:
        field = b"X: " + b"x" * 4 * server.MAX_HEAD
        answer = await exchange(port, b"GET /fine HTTP/1.1\r\n" + field + b"\r\n\r\n")
        assert taken_apart(answer).status == 431

    async def test_an_error_is_answered_and_logged(
        self, port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR):
            assert (await get(port, "/broken")).status == 500
        assert "/broken could not be answered" in caplog.text
        assert (await get(port, "/fine")).status == 200


class TestBounds:
    async def test_half_a_request_is_not_waited_for(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "REQUEST_TIMEOUT", 0.2)
        assert await exchange(port, b"GET /fine HTTP/1.1\r\n") == b""

    async def test_beyond_a_number_of_connections_they_are_closed(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /fine HTTP/1.1\r\n\r\n"

        assert await exchange(port, request) == b""

        idle.transport.abort()
        async with asyncio.timeout(10):
            while await exchange(port, request) == b"":  # noqa: ASYNC110  the server sees it later
                await asyncio.sleep(0.05)

    async def test_stopping_waits_for_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "REQUEST_TIMEOUT", 60.0)
        answering = HttpServer({})
        port = await answering.start("127.0.0.1", 0)
        waiting = asyncio.create_task(exchange(port, b"GET /fine"))
        async with asyncio.timeout(10):
            while not answering._connections:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.01)

            await answering.stop()

            assert await waiting == b""
        with pytest.raises(OSError, match="onnect"):
            await exchange(port, b"")
