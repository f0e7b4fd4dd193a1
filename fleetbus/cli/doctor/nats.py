"""NATS, and over it: the stream, the handler processes, a query."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from bus.kit.urls import without_secrets
from bus.storage.connecting import CONNECT_TIMEOUT
from fleetbus.cli.doctor.check import LARGEST_ROUND_TRIP, Check, fastest
from fleetbus.cli.doctor.processes import detection, handlers, keys, load, processes
from fleetbus.cli.doctor.stream import stream
from fleetbus.client.connection.client import RepliesRefused, connect
from fleetbus.server.config import Settings
from fleetbus.server.starting import words

QUERY = "db.tasks.list"


async def examine_nats(settings: Settings) -> AsyncIterator[Check]:
    where = without_secrets(settings.nats_url)
    reasons: list[Exception] = []

    async def note(error: Exception) -> None:
        reasons.append(error)

    try:
        client = await connect(
            settings.nats_servers,
            name="fleetbus-doctor",
            inbox_prefix=settings.inbox_prefix,
            error_cb=note,
            connect_timeout=int(CONNECT_TIMEOUT),
            reconnect_time_wait=0.1,
        )
    except (OSError, NatsError, TimeoutError, ValueError) as error:
        remedy = "start it, or name another with NATS_URL or --nats-url"
        yield Check("NATS", False, f"{where}: {words((*reasons, error)[0])}", remedy)
        return
    try:
        took = await fastest(client.flush)
        server = client.connected_server_version
        version = f"{server.major}.{server.minor}.{server.patch}"
        yield Check("NATS", True, f"{version} at {where}, there and back in {took * 1000:.1f} ms")
        yield await stream(client, settings)
        yield (found := await handlers(client))
        if found.ok:
            answers = await processes(client)
            yield load(answers)
            yield keys(answers)
            yield await detection(client, settings)
            yield await _query(client)
    except RepliesRefused as refused:
        remedy = "set FLEETBUS_INBOX_PREFIX to what the NATS user may subscribe to"
        yield Check("inbox", False, str(refused), remedy)
    finally:
        await client.close()


async def _query(client: Client) -> Check:
    """Time a query all the way: NATS, handler, Postgres and back."""
    refused = ""

    async def ask() -> None:
        nonlocal refused
        answer = await client.request(QUERY, b'{"limit": 1}', timeout=5)
        refused = (answer.headers or {}).get("Nats-Service-Error", "")

    try:
        took = await fastest(ask)
    except NoRespondersError:
        return Check("query", False, f"nobody answers {QUERY}", "start `fleetbus serve`")
    except (NatsError, TimeoutError) as error:
        return Check("query", False, f"{QUERY}: {words(error)}", "look at the handlers' logs")
    if refused:
        return Check("query", False, f"{QUERY}: {refused}", "look at the handlers' logs")
    detail = f"{QUERY} is answered in {took * 1000:.1f} ms"
    return Check("query", took <= LARGEST_ROUND_TRIP, detail, "the service is loaded: add handlers")
