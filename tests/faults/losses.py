"""Harm after which the stream lacks what it has acknowledged; only the reconciler mends it.

Nobody tells the relay: it has to notice by itself.
"""

from __future__ import annotations

import asyncio
from random import Random

from nats.js import JetStreamContext

from tests.faults.fleet import Fleet
from tests.faults.nemeses import nemesis
from tests.faults.nodes import DUPLICATE_WINDOW, STREAM, insist

EVENTS_LOST = 20
"""How many events at least the stream has acknowledged and then forgets."""


@nemesis("the store of the only NATS server is replaced by an older copy", nodes=(1,), loses=True,
         excuses=True)  # fmt: skip
async def store_restored(fleet: Fleet, _: Random) -> str:
    node = fleet.servers.nodes[0]
    await node.stop()
    node.save_store()
    await node.start()
    wanted = await _length(fleet) + EVENTS_LOST
    async with asyncio.timeout(30):
        while await _length(fleet) < wanted:  # noqa: ASYNC110  the server tells, and only when asked
            await asyncio.sleep(0.1)
    await node.stop()
    node.restore_store()
    await node.start()
    return node.name


@nemesis("the stream is deleted", nodes=(1, 3), loses=True)
async def stream_deleted(fleet: Fleet, _: Random) -> str:
    await insist(lambda js: js.delete_stream(STREAM), fleet.nats_urls)
    # The relay makes it anew, with the window of every day.
    await insist(shorten_window, fleet.nats_urls)
    return STREAM


async def shorten_window(js: JetStreamContext) -> None:
    """Have the stream forget ids as fast as it can: the promises must not rest on it."""
    config = (await js.stream_info(STREAM)).config
    config.duplicate_window = DUPLICATE_WINDOW
    await js.update_stream(config)


async def _length(fleet: Fleet) -> int:
    info = await insist(lambda js: js.stream_info(STREAM), fleet.nats_urls)
    return info.state.messages
