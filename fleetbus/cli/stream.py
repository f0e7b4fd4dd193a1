"""The events of the stream, in order: an ordered consumer that asks for what it can take.

The client library's own one pushes, and cannot be renewed where it began at a point in time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError, ServiceUnavailableError

from fleetbus.cli.terminal import Failed, note

PAGE = 256
IDLE = 5.0
"""Seconds without an event after which the consumer is asked whether it is still there."""

_PAUSE = 0.25


class Interrupted(Exception):
    """The consumer is gone, or something it sent did not arrive."""


@dataclass
class StreamReader:
    """Reads the events of some subjects; what is lost on the way is read again."""

    client: Client
    stream: str
    subjects: list[str]
    since: datetime | None = None
    only_new: bool = False
    _next: int = 0
    _last: int = 0

    async def messages(self, *, follow: bool) -> AsyncGenerator[Msg]:
        """Each message once and in order; without ``follow`` up to the end as it is now."""
        js = self.client.jetstream()
        self._last = await self._end(js)
        told = False
        while True:
            try:
                async for message in self._of_one_consumer(js, follow=follow):
                    self._next = message.metadata.sequence.stream + 1
                    told = False
                    yield message
            except (NatsError, TimeoutError, Interrupted) as error:
                if not follow:
                    raise Failed(f"reading the stream {self.stream} failed: {error}") from None
                if not told:
                    note(f"interrupted ({str(error) or type(error).__name__}); trying again")
                told = True
                await asyncio.sleep(_PAUSE)
            else:
                return

    async def _end(self, js: JetStreamContext) -> int:
        try:
            info = await js.stream_info(self.stream)
        except NotFoundError:
            raise Failed(
                f"there is no stream {self.stream} yet: `fleetbus serve` creates it"
            ) from None
        except (ServiceUnavailableError, NoRespondersError):
            raise Failed("this NATS has no JetStream: start nats-server with --jetstream") from None
        except TimeoutError:
            raise Failed("JetStream does not answer") from None
        return info.state.last_seq

    async def _of_one_consumer(self, js: JetStreamContext, *, follow: bool) -> AsyncGenerator[Msg]:
        config = self._config()
        subscription = await js.pull_subscribe("", stream=self.stream, config=config)
        try:
            info = await subscription.consumer_info()
            received, pending = 0, info.num_pending or 0
            while follow or pending:
                try:
                    page = await subscription.fetch(max(1, min(pending, PAGE)), timeout=IDLE)
                except NatsTimeout:
                    pending = _still_pending(await subscription.consumer_info(), received)
                    continue
                for message in page:
                    received += 1
                    metadata = message.metadata
                    if metadata.sequence.consumer != received:
                        raise Interrupted("events were lost on the way")
                    if not follow and metadata.sequence.stream > self._last:
                        return
                    pending = metadata.num_pending
                    yield message
        finally:
            await self._forget(js, subscription, config)

    async def _forget(
        self,
        js: JetStreamContext,
        subscription: JetStreamContext.PullSubscription,
        config: ConsumerConfig,
    ) -> None:
        with contextlib.suppress(NatsError, TimeoutError):
            await subscription.unsubscribe()
            await js.delete_consumer(self.stream, config.name or "")

    def _config(self) -> ConsumerConfig:
        config = ConsumerConfig(
            filter_subjects=self.subjects,
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=60,
        )
        if self._next:
            config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = self._next
        elif self.only_new:
            # By sequence, so that nothing is lost if the first consumer is.
            config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = self._last + 1
        elif self.since is not None:
            config.deliver_policy = DeliverPolicy.BY_START_TIME
            config.opt_start_time = self.since
        return config


def _still_pending(info: ConsumerInfo, received: int) -> int:
    """What the consumer has yet to send, if all that it sent has arrived."""
    sent = info.delivered.consumer_seq if info.delivered else 0
    if sent != received:
        raise Interrupted("events were lost on the way")
    return info.num_pending or 0
