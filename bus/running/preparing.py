"""Prepares calls before their transaction: reads on a read connection, works in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Overloaded
from bus.handling.preparing import Slow
from bus.handling.shapes import Handling
from bus.running.attempts import Attempts
from bus.running.calls import Call
from bus.running.hashing import Hashing
from bus.running.keeping import replay
from bus.running.registry import Registry
from bus.storage.database import Database
from bus.storage.outages import READ_ONLY, sqlstate
from bus.storage.own import commit as _commit


class PreparationWrites(Exception):
    """A preparation writes, and what it writes would not be of the transaction: a bug."""


class Preparing:
    """Gives calls what their preparation makes. ``left``: the seconds that callers still listen."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        attempts: Attempts,
        hashing: Hashing,
        left: Callable[[Sequence[Call]], float],
    ) -> None:
        self._registry = registry
        self._database = database
        self._attempts = attempts
        self.hashing = hashing
        self._left = left

    async def prepare(self, call: Call) -> None:
        """Prepare a call, or answer it where its key has an answer, or the preparation fails."""

        async def run(calls: Sequence[Call]) -> None:
            async with asyncio.timeout(self._left(calls)):
                await self._prepare(call, keyed=call.key is not None)

        await self._attempt(call, [call], run)

    async def prepare_parts(self, call: Call) -> None:
        """Prepare each of several commands, or answer for all where that fails."""
        if not any(part.bound.handling.preparation for part in call.parts):
            return

        async def run(calls: Sequence[Call]) -> None:
            async with asyncio.timeout(self._left(calls)):
                if call.key is not None:
                    async with self._database.connection(read_only=True) as db:
                        await self._opened(call, db, keyed=True)
                for index, part in enumerate(call.parts):
                    if call.answered:
                        return
                    call.part = index
                    await self._prepare(part, keyed=False)

        await self._attempt(call, call.parts, run)

    async def _attempt(
        self, call: Call, commands: Sequence[Call], run: Callable[[Sequence[Call]], Awaitable[None]]
    ) -> None:
        """Run it, if there is a place for its slow work: what is shed costs nothing more."""
        slow = any(_is_slow(command) for command in commands)
        try:
            with self.hashing.place() if slow else nullcontext():
                await self._attempts.run([call], run)
        except Overloaded as refusal:
            call.refuse(refusal)

    async def _prepare(self, call: Call, *, keyed: bool) -> None:
        preparation = call.bound.handling.preparation
        if preparation is None:
            return
        made = await self._read(call, preparation, keyed=keyed)
        if isinstance(made, Slow) and not call.answered:
            made = await self.hashing.do(made)
        call.prepared = made

    async def _read(self, call: Call, preparation: Handling, *, keyed: bool) -> Any:
        if not (preparation.dependencies or keyed):
            return await self._made(call, preparation, {})
        async with self._database.connection(read_only=True) as db:
            given: dict[str, Any] = {"db": db}
            if keyed or "now" in preparation.dependencies:
                given["now"] = await self._opened(call, db, keyed=keyed)
            if call.answered:
                return None
            return await self._made(call, preparation, given)

    async def _opened(self, call: Call, db: AsyncConnection, *, keyed: bool) -> Any:
        """The database's clock. What was done before is not prepared for again."""
        opening = await _commit.open_work(db, call.caller, [str(call.key)] if keyed else [])
        if keyed and (answer := replay(call, opening)) is not None:
            call.answer(answer)
        return opening.now

    async def _made(self, call: Call, preparation: Handling, given: dict[str, Any]) -> Any:
        picked = {name: given[name] for name in preparation.dependencies}
        more = self._registry.given_to(preparation)
        try:
            return await preparation.function(call.message, **picked, **more)
        except Exception as error:
            if sqlstate(error) == READ_ONLY:
                # The database is not read-only, this connection is.
                raise PreparationWrites(f"{preparation.name} writes to the database") from None
            raise


def _is_slow(call: Call) -> bool:
    preparation = call.bound.handling.preparation
    prepares = None if preparation is None else preparation.prepares
    return prepares is not None and prepares.slow
