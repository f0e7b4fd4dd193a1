"""The stream: created once, checked after, never changed."""

import logging
from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy

from fleetbus.server.relay.stream import (
    StreamSettings,
    StreamUnfit,
    StreamUnread,
    ensure_stream,
    stored_after,
)
from tests.fleetbus.relay.running import client_of


class TestEnsure:
    async def test_creates_what_the_relay_needs(
        self, nats_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            created = await ensure_stream(js, StreamSettings())
            again = await ensure_stream(js, StreamSettings())

        assert created.config == again.config
        assert created.config.subjects == ["events.>"]
        assert created.config.allow_atomic
        assert created.config.allow_direct
        assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]

    async def test_says_what_differs_and_leaves_it(
        self, nats_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await js.add_stream(name="EVENTS", subjects=["events.>"], max_age=3600, max_msgs=1000)
            info = await ensure_stream(js, StreamSettings())

        assert (info.config.max_age, info.config.max_msgs) == (3600, 1000)
        said = [entry.getMessage() for entry in caplog.records]
        assert "stream EVENTS has max_msgs=1000, not -1" in said
        assert not any("max_age" in message for message in said)
        assert any("allow_atomic" in message for message in said)

    async def test_refuses_a_stream_that_would_lose_events(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await js.add_stream(
                name="EVENTS",
                subjects=["events.task.>"],
                retention=RetentionPolicy.INTEREST,
            )
            with pytest.raises(StreamUnfit, match=r"subjects are .*; retention is interest"):
                await ensure_stream(js, StreamSettings())


class TestStoredAfter:
    async def test_tells_positions_and_ids_across_gaps_and_strangers(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await ensure_stream(js, StreamSettings())
            for n in range(1, 1201):
                headers = {"Nats-Msg-Id": f"id{n}", "Fleet-Position": str(n * 2)}
                await js.publish("events.a.b.c", b"x" * 100, headers=headers)
            await js.publish("events.by.somebody.else", b"")
            for deleted in (700, 1201):
                await js.delete_msg("EVENTS", deleted)
            info = await js.stream_info("EVENTS")

            stored = [event async for page in stored_after(js, info, 600) for event in page]
            assert [event.sequence for event in stored] == [n for n in range(601, 1201) if n != 700]
            assert stored[0].position == 1202
            assert stored[0].event_id == "id601"
            assert [page async for page in stored_after(js, info, 1201)] == []
            assert (await js.stream_info("EVENTS")).state.consumer_count == 0

    async def test_a_replica_that_is_behind_is_not_believed(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says that nothing is pending, and means that it has nothing more."""

        async def ends_early(*_: object) -> AsyncIterator[list[Msg]]:
            for page in list[list[Msg]]():
                yield page

        monkeypatch.setattr("fleetbus.server.relay.stream._pages", ends_early)
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await ensure_stream(js, StreamSettings())
            await js.publish("events.task.created.t1", b"{}")
            info = await js.stream_info("EVENTS")
            with pytest.raises(StreamUnread, match="behind"):
                assert [page async for page in stored_after(js, info, 0)] == []
            await js.delete_msg("EVENTS", 1)
            assert [page async for page in stored_after(js, info, 0)] == []
