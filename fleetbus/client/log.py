"""The log of an agent, stored in the background: nobody waits for it, and its size is bounded."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING

import pydantic_core

from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from contracts.agents.agents import Agent
from contracts.agents.log_chunks import AppendManyLogChunks, LogChunkItem
from fleetbus.client import storable

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

log = logging.getLogger("fleetbus.worker")

PIECE = 64 * 1024
"""Characters of one chunk; as JSON they fit into a message, whatever they are."""

BATCH_CHUNKS = 500
BATCH_BYTES = 400 * 1024
"""What goes into one request, counted as JSON; one chunk is always taken."""

KEPT = 8 * 1024 * 1024
"""Characters that wait at most; beyond, the oldest are dropped."""

LINGER = 0.5
"""Seconds in which what is said is collected."""


class LogBuffer:
    """The end of an agent's log that has not been stored."""

    def __init__(self, bus: Caller, agent: Agent) -> None:
        self._bus = bus
        self._agent = agent
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._dropped = 0
        self._batch: tuple[AppendManyLogChunks, str] | None = None
        self._sending = asyncio.Lock()
        self._said = asyncio.Event()

    def add(self, said: object) -> None:
        """Take a text, ended by a newline; what cannot be stored in it is replaced."""
        text = storable.text(said)
        text += "" if text.endswith("\n") else "\n"
        for start in range(0, len(text), PIECE):
            self._waiting.append(text[start : start + PIECE])
        self._characters += len(text)
        while self._characters > KEPT:
            self._characters -= len(self._waiting.popleft())
            self._dropped += 1
        self._said.set()

    async def run(self) -> None:
        """Store appended text, until cancelled."""
        while True:
            await self._said.wait()
            await asyncio.sleep(LINGER)
            self._said.clear()
            try:
                await self.flush()
            except (TimeoutError, Refusal) as failure:
                log.warning("log of agent %s: %s", self._agent.id, failure)
                self._said.set()

    async def flush(self) -> None:
        """Store all appended text. Raises what the call raises; nothing is lost by that."""
        async with self._sending:
            while self._batch or self._waiting or self._dropped:
                # A batch keeps its key and its content until it is stored: once, and in order.
                self._batch = self._batch or (self._next_batch(), str(uuid7()))
                await self._send(*self._batch)
                self._batch = None

    async def _send(self, batch: AppendManyLogChunks, key: str) -> None:
        try:
            await self._bus.call(batch, key=key)
        except Refusal as refusal:
            if refusal.status < 500 and not refusal.retryable:
                self._batch = None  # it would be refused for ever, and hold up the rest
            raise

    def _next_batch(self) -> AppendManyLogChunks:
        items: list[LogChunkItem] = []
        size = 0
        if self._dropped:
            note = {"fleetbus": f"{self._dropped} pieces of the log were dropped"}
            items.append(LogChunkItem(content=json.dumps(note) + "\n"))
            self._dropped = 0
        while self._waiting and len(items) < BATCH_CHUNKS:
            size += len(pydantic_core.to_json(self._waiting[0]))
            if items and size > BATCH_BYTES:
                break
            content = self._waiting.popleft()
            self._characters -= len(content)
            items.append(LogChunkItem(content=content))
        return AppendManyLogChunks(
            agent_id=self._agent.id,
            incarnation=self._agent.incarnation,
            agent_name=self._agent.name,
            session_number=self._agent.incarnation,
            items=items,
        )
