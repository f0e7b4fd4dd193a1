"""Commands that the service gives itself, in the process that gives them.

They go on no subject, and their idempotency keys lie in a space of their own: whoever guesses or
reads a key of ours can do nothing with it from outside.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

import pydantic_core

from bus.contract.errors import Unavailable
from bus.contract.operation import Command
from bus.running.calls import Answer
from bus.running.dispatcher import Dispatcher

PAUSE = 0.05
"""Seconds before what may be repeated is, the first time; then twice as many, up to a second."""


class NotDone(Exception):
    """A command of our own was refused, or not answered in time."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.kind}: {answer.detail}")
        self.level = logging.DEBUG if answer.kind == Unavailable.type else logging.WARNING
        """How it is to be logged: that the database is away everybody knows."""


class Inside:
    """Gives commands to the dispatcher of this process, as a caller that is none outside."""

    def __init__(self, dispatcher: Dispatcher, caller: str, *, attempt_timeout: float) -> None:
        if not caller:
            raise ValueError("a caller inside has a name: those outside have none")
        self._dispatcher = dispatcher
        self._caller = caller
        self._attempt_timeout = attempt_timeout

    async def call(self, command: Command[Any], *, key: str, timeout: float) -> None:  # noqa: ASYNC109  of all attempts
        """Have a command done once; what may be repeated is, for so long. Raises ``NotDone``."""
        end = time.monotonic() + timeout
        pause = PAUSE
        while True:
            attempt = min(self._attempt_timeout, end - time.monotonic())
            answer = await self._attempt(command, key, attempt)
            if answer.status == 200:
                return
            wait = pause * random.uniform(0.5, 1)  # noqa: S311  jitter
            if not _may_be_repeated(answer) or time.monotonic() + wait >= end:
                raise NotDone(answer)
            await asyncio.sleep(wait)
            pause = min(2 * pause, 1.0)

    async def _attempt(self, command: Command[Any], key: str, seconds: float) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def respond(answer: Answer) -> None:
            if answer.sent is not None:
                answer.sent()
            if not answered.done():
                answered.set_result(answer)

        deadline = str(int((time.time() + seconds) * 1000))
        self._dispatcher.accept(
            self._dispatcher.registry.operations[command.declared.subject],
            command.__pydantic_serializer__.to_json(command, exclude_unset=True),
            {"Nats-Msg-Id": key, "Fleet-Deadline": deadline},
            respond,
            caller=self._caller,
        )
        return await answered


def _may_be_repeated(answer: Answer) -> bool:
    return bool(pydantic_core.from_json(answer.body).get("retryable"))
