"""Metrics and health of a process over HTTP, before its service has started and while it drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pydantic_core

from fleetbus.server.config import Settings
from fleetbus.server.monitoring.readiness import FINE, readiness
from fleetbus.server.monitoring.server import HttpServer, Response
from fleetbus.server.service import Service
from fleetbus.server.starting import CannotStart, words

if TYPE_CHECKING:
    from fleetbus.server.monitoring.collector import Exposition

log = logging.getLogger("fleetbus.monitoring")


class Monitor:
    """Watches a service; without one the process is live, and not ready."""

    def __init__(self) -> None:
        self.service: Service | None = None
        self.port: int | None = None
        self._exposition: Exposition
        self._server = HttpServer(
            {
                "/metrics": self._metrics,
                "/health/live": self._live,
                "/health/ready": self._ready,
            }
        )

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises ``CannotStart``."""
        # A process that listens to nobody does without the library.
        from fleetbus.server.monitoring.collector import Exposition

        self._exposition = Exposition()
        try:
            self.port = await self._server.start(host, port)
        except OSError as error:
            raise CannotStart(f"HTTP at {host}:{port}: {words(error)}") from error
        log.info("metrics and health at http://%s:%d", host, self.port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _live(self) -> Response:
        return _json(HTTPStatus.OK, {"live": True})

    async def _ready(self) -> Response:
        checks = await self._checks()
        ready = _all_fine(checks)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, {"ready": ready, "checks": checks})

    async def _metrics(self) -> Response:
        from fleetbus.server.monitoring.collector import CONTENT_TYPE, snapshot

        found = None
        if self.service is not None:
            ready = _all_fine(await self._checks())
            found = snapshot(self.service, await self.service.figures.read(), ready=ready)
        # In a thread: so much text would take the event loop longer than many requests do.
        body = await asyncio.to_thread(self._exposition.text, found)
        return Response(HTTPStatus.OK, body, CONTENT_TYPE)

    async def _checks(self) -> dict[str, str]:
        if self.service is None:
            return {"service": "starting"}
        return await readiness(self.service)


@asynccontextmanager
async def monitored(settings: Settings) -> AsyncIterator[Monitor]:
    """A monitor that listens if the settings say so. Raises ``CannotStart``."""
    monitor = Monitor()
    if settings.http_port is not None:
        await monitor.start(settings.http_host, settings.http_port)
    try:
        yield monitor
    finally:
        await monitor.stop()


def _all_fine(checks: dict[str, str]) -> bool:
    return set(checks.values()) == {FINE}


def _json(status: HTTPStatus, body: dict[str, Any]) -> Response:
    return Response(status, pydantic_core.to_json(body) + b"\n", "application/json")
