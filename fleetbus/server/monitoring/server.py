"""HTTP/1.1 for those who watch: GET and HEAD on a few paths, one request a connection.

What arrives is bounded in size and time, and so is the number of connections: whatever reaches
this port, the requests on NATS go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from bus.kit.aio import end
from bus.kit.logs import limited

log = logging.getLogger("fleetbus.monitoring")

MAX_HEAD = 8192
"""Bytes of a request line and its headers."""

MAX_CONNECTIONS = 32

REQUEST_TIMEOUT = 5.0
"""Seconds for a request to arrive, and for its answer to be taken."""

LINGER = 0.5
"""Seconds that the other side has to close first, so that it reads the answer to its end."""

METHODS = ("GET", "HEAD")


class Response(NamedTuple):
    """What is answered; the body is left out where only its head was asked for."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[], Awaitable[Response]]


class BadRequest(Exception):
    """What arrived is not a request that this server understands."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HttpServer:
    """Answers on its paths; ``start``, then ``stop``."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which matters for 0. Raises ``OSError``."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and let go of what is open."""
        if self._server is not None:
            self._server.close()
        await end(*self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                method, response = await self._respond(reader)
                writer.write(_encoded(response, head_only=method == "HEAD"))
                await writer.drain()
                writer.write_eof()
            async with asyncio.timeout(LINGER):
                while await reader.read(MAX_HEAD):
                    pass
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            return
        finally:
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader) -> tuple[str, Response]:
        try:
            method, path = await _request(reader)
        except BadRequest as wrong:
            return "GET", plain(wrong.status)
        if (route := self._routes.get(path)) is None:
            return method, plain(HTTPStatus.NOT_FOUND)
        if method not in METHODS:
            allow = (("Allow", ", ".join(METHODS)),)
            return method, plain(HTTPStatus.METHOD_NOT_ALLOWED)._replace(headers=allow)
        try:
            return method, await route()
        except Exception as error:  # noqa: BLE001  whatever it is, the caller is told
            kind, said = "http", "%s could not be answered"
            limited(log, logging.ERROR, kind, said, path, exc_info=error)
            return method, plain(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path. Raises ``BadRequest``, or ``IncompleteReadError`` for half of one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    return words[0], words[1].partition("?")[0]


def plain(status: HTTPStatus) -> Response:
    """A status in words."""
    return Response(status, f"{status.phrase}\n".encode())


def _encoded(response: Response, *, head_only: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if head_only else head + response.body
