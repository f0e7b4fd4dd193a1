"""Runs queries by id: those that come together are answered with one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bus.handling.lookups import LookedUp
from bus.running.calls import Call
from bus.running.failures import refusal_for
from bus.running.replying import Replies
from bus.storage.database import Database
from bus.storage.lookups import Found, look_up


class Lookups:
    """Answers queries by id, all of one operation; ``left`` says the seconds that they wait."""

    def __init__(
        self, database: Database, replies: Replies, left: Callable[[Sequence[Call]], float]
    ) -> None:
        self._database = database
        self._replies = replies
        self._left = left

    async def answer(self, calls: Sequence[Call]) -> None:
        """Look up what the calls are about, and answer each of them."""
        handling = calls[0].bound.handling
        looked = handling.looked_up
        assert looked is not None
        ids = {looked.id_of(call.message) for call in calls}
        clock = "now" in handling.dependencies
        async with (
            asyncio.timeout(self._left(calls)),
            self._database.connection(read_only=True) as db,
        ):
            found = await look_up(db, looked.parts, ids, clock=clock)
        for call in calls:
            try:
                reply = _reply(call, looked, found)
                call.answer(self._replies.answer(call.bound, reply))
            except Exception as error:  # noqa: BLE001  one call's error is its own
                call.refuse(refusal_for(error, call.bound))


def _reply(call: Call, looked: LookedUp, found: Found) -> Any:
    id_ = looked.id_of(call.message)
    values = found.rows.get(id_) or looked.without(id_)
    function = call.bound.handling.function
    if found.now is None:
        return function(call.message, *values)
    return function(call.message, *values, now=found.now)
