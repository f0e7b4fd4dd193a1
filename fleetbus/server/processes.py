"""Processes: one handler process, several under a supervisor, or everything on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy.exc import ArgumentError

from bus.kit.aio import end
from bus.kit.logs import configure
from fleetbus.client.connection.client import connect
from fleetbus.server.config import Settings
from fleetbus.server.keys import make_key_file
from fleetbus.server.monitoring.monitor import monitored
from fleetbus.server.relay.stream import StreamUnfit, ensure_stream
from fleetbus.server.service import Service
from fleetbus.server.starting import NO_DATABASE_URL, CannotStart, why
from fleetbus.server.supervisor import Supervisor

log = logging.getLogger("fleetbus")

EXIT_FAILED = 1

FAILED_TIMEOUT = 5.0
"""Seconds in which a process that cannot go on may still answer what it has in work."""

KEY_FILE = "credentials.keys"
"""In the data directory of `up`."""

YOUNG_OBJECTS = 10_000
"""Objects that are made before the garbage among them is looked for (Python's own default: 700)."""

STREAM_BYTES = 8 * 1024**3
"""What the stream may take that `up` makes, where no setting says otherwise."""

WAIT_INTERVAL = 0.5
"""Seconds between two attempts to start while something is missing."""


def serve(settings: Settings, *, workers: int = 1, wait: bool = False) -> int:
    """Run handlers until a signal; returns the exit code."""
    configure(settings.log_level)
    if workers == 1:
        return run(serve_one(settings, wait=wait))
    return run(_serve_many(settings, workers, wait=wait))


def up(
    settings: Settings,
    *,
    data_dir: Path | None = Path(".fleetbus"),
    nats_port: int = 0,
    workers: int = 1,
) -> int:
    """Run everything on this machine until a signal; ``data_dir`` None leaves nothing behind."""
    configure(settings.log_level)
    return run(_up(settings, data_dir, nats_port, workers))


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end on the fastest event loop there is."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def serve_one(
    settings: Settings, *, wait: bool, stop: asyncio.Event | None = None, ready: bool = False
) -> int:
    """One handler process; with ``ready`` it says so on stdout once it takes requests."""
    stopped = stop or stop_on_signals()
    try:
        async with monitored(settings) as monitor:
            service = await _started(settings, stopped, wait=wait)
            if service is None:
                return 0 if stopped.is_set() else EXIT_FAILED
            monitor.service = service
            _leave_alone()
            return await _serve_until(stopped, service, ready=ready)
    except CannotStart as error:
        log.error("cannot start: %s", error)  # noqa: TRY400  a message, not a traceback
        return EXIT_FAILED


def _leave_alone() -> None:
    """Keep what has been made by now out of all further garbage collections, since it stays.

    A full one would look at all of it, for a tenth of a second in which nobody is answered. What a
    request makes is gone with its answer, mostly without a collection, so they come less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


async def _serve_until(stopped: asyncio.Event, service: Service, *, ready: bool) -> int:
    if ready:
        print("ready", flush=True)  # noqa: T201  the supervisor reads it
    await _either(stopped, service.failed)
    log.info("stopping: draining %d requests", service.dispatcher.stats.in_flight)
    finished = False
    limit = FAILED_TIMEOUT if service.failed.is_set() else None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            finished = await service.stop()
    return 0 if finished and not service.failed.is_set() else EXIT_FAILED


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*waiting)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _started(settings: Settings, stopped: asyncio.Event, *, wait: bool) -> Service | None:
    said = ""
    while not stopped.is_set():
        try:
            service = Service(settings)
        except (ArgumentError, ValueError):
            raise CannotStart(NO_DATABASE_URL) from None
        try:
            await service.start()
        except CannotStart as error:
            if not wait:
                raise
            if str(error) != said:
                log.warning("waiting: %s", error)
                said = str(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_INTERVAL):
                    await stopped.wait()
        else:
            return service
    return None


async def _serve_many(settings: Settings, workers: int, *, wait: bool) -> int:
    stopped = stop_on_signals()
    supervisor = Supervisor(settings, workers, wait=wait)
    try:
        if not await _first_of(supervisor.ready(), stopped):
            return 0 if stopped.is_set() else EXIT_FAILED
        log.info("%d handler processes are ready", workers)
        await stopped.wait()
    finally:
        await supervisor.stop()
    return 0


async def _up(settings: Settings, data_dir: Path | None, nats_port: int, workers: int) -> int:
    from fleetbus.server import migrate

    stopped = stop_on_signals()
    url = ""
    try:
        async with _stack(data_dir, nats_port) as stack:
            url = stack.postgres.url
            urls: dict[str, Any] = {
                "database_url": url,
                "database_pooler_url": "",
                "nats_url": stack.nats.url,
                "nats_system_url": stack.nats.system_url,
                "nats_system_credentials": "",
            }
            if not settings.credentials_keys and settings.credentials_key_file is None:
                urls["credentials_key_file"] = make_key_file(stack.data_dir / KEY_FILE)
            await migrate.upgrade_directory(url, stack.data_dir)
            await _make_stream(stack.nats.url, settings)
            supervisor = Supervisor(settings.model_copy(update=urls), workers, wait=False)
            keepers = [
                asyncio.create_task(_keep(stack.postgres, "PostgreSQL", stopped)),
                asyncio.create_task(_keep(stack.nats, "NATS", stopped)),
            ]
            try:
                if not await _first_of(supervisor.ready(), stopped):
                    return 0 if stopped.is_set() else EXIT_FAILED
                print(f"ready {stack.nats.url}", flush=True)  # noqa: T201  scripts wait for it
                await stopped.wait()
            finally:
                stopped.set()
                await supervisor.stop()
                await end(*keepers)
    except Exception as error:
        if (reason := why(error, url)) is None:
            raise
        log.error("cannot start: %s", reason)  # noqa: TRY400  a message, not a traceback
        return EXIT_FAILED
    return 0


async def _make_stream(url: str, settings: Settings) -> None:
    """A stream that is made on somebody's own machine does not fill its disk."""
    wanted = settings.events_stream
    limits = dataclasses.replace(wanted.limits, max_bytes_at_creation=STREAM_BYTES)
    client = await connect(url, name="fleetbus-up")
    try:
        await ensure_stream(
            client.jetstream(), dataclasses.replace(wanted, limits=limits), report=False
        )
    except StreamUnfit as unfit:
        log.warning("%s", unfit)  # the processes say it too, and end
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _stack(data_dir: Path | None, nats_port: int) -> AsyncIterator[Any]:
    from fleetbus.embedded.stack import EmbeddedStack

    async with EmbeddedStack(data_dir, nats_port=nats_port) as stack:
        yield stack


async def _keep(server: Any, name: str, stopped: asyncio.Event) -> None:
    """Start an embedded server again when it ends by itself."""
    while True:
        status = await server.wait()
        if stopped.is_set():
            return
        log.error("%s ended with status %d; starting it again", name, status)
        await _start_again(server, name)


async def _start_again(server: Any, name: str) -> None:
    from fleetbus.embedded.errors import EmbeddedError

    while True:
        try:
            await server.start()
        except EmbeddedError as error:
            log.error("%s does not start: %s", name, error)  # noqa: TRY400  a message is enough
            await asyncio.sleep(WAIT_INTERVAL)
        else:
            return


async def _first_of(work: Coroutine[Any, Any, bool], stopped: asyncio.Event) -> bool:
    """What the work says, False if a signal came first."""
    working = asyncio.create_task(work)
    signalled = asyncio.create_task(stopped.wait())
    await asyncio.wait({working, signalled}, return_when=asyncio.FIRST_COMPLETED)
    await end(signalled)
    if working.done():
        return working.result()
    await end(working)
    return False


async def _worker() -> int:
    settings = Settings()
    stopped = stop_on_signals()
    watcher = asyncio.create_task(_stop_with_parent(stopped))
    try:
        return await serve_one(settings, wait="--wait" in sys.argv, stop=stopped, ready=True)
    finally:
        await end(watcher)


async def _stop_with_parent(stopped: asyncio.Event) -> None:
    """The supervisor holds the other end of stdin: its end means that the supervisor is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stopped.set()


if __name__ == "__main__":
    configure(Settings().log_level, prefix=f"[{os.getpid()}] ")
    sys.exit(run(_worker()))
