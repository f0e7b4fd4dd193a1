"""Connections, and what is answered to a discovery request."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats
from nats.aio.client import Client

from bus.contract.catalogue import Catalogue
from bus.running.registry import Registry
from bus.running.stats import Stats

Json = dict[str, Any]


def registry_of(catalogue: Catalogue) -> Registry:
    return Registry(catalogue, {}, {})


def stats_of(catalogue: Catalogue) -> Stats:
    return Stats([operation.declared.subject for operation in catalogue.operations])


async def connected(url: str) -> Client:
    async def ignore(_: Exception) -> None: ...

    return await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore
    )


async def asked(client: Client, subject: str, count: int) -> list[Json]:
    """This many answers, and not one more."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, reply=inbox)
    answers = [json.loads((await subscription.next_msg(timeout=5)).data) for _ in range(count)]
    await asyncio.sleep(0.05)
    assert subscription.pending_msgs == 0
    await subscription.unsubscribe()
    return answers


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  a client's state has no event
            await asyncio.sleep(0.02)


async def planning(client: Client, verb: str) -> Json:
    return json.loads((await client.request(f"$SRV.{verb}.planning", timeout=10)).data)  # type: ignore[no-any-return]  # JSON
