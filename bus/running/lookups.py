"""Runs queries by id: those that come together are answered with one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bus.running.calls import Call
from bus.running.failures import refusal_for
from bus.running.replying import Replies
from bus.storage import entities as _entities
from bus.storage.database import Database


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
        entity = handling.entities[0].entity
        async with (
            asyncio.timeout(self._left(calls)),
            self._database.connection(read_only=True) as db,
        ):
            found = await _entities.load(db, entity, {call.message.id for call in calls})
        for call in calls:
            try:
                if call.message.id not in found:
                    raise entity.not_found(id=call.message.id)
                reply = handling.function(call.message, found[call.message.id])
                call.answer(self._replies.answer(call.bound, reply))
            except Exception as error:  # noqa: BLE001  one call's error is its own
                call.refuse(refusal_for(error, call.bound))
