"""Answers as NATS messages: their headers, their order, and that a broken one harms no other."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.running.calls import Answer
from fleetbus.server.wire.headers import MAX_ERROR_LINE, headers_of, one_line
from fleetbus.server.wire.replies import Responder


class TestOneLine:
    @given(st.text(max_size=1_000))
    def test_whatever_the_text_it_is_one_short_printable_line(self, text: str) -> None:
        line = one_line(text)

        assert len(line) <= MAX_ERROR_LINE
        assert line.isascii()
        assert not line or line.isprintable()
        assert line == line.strip()

    def test_a_plain_text_stays_as_it_is(self) -> None:
        assert one_line("task 1 is completed, not in_progress") == (
            "task 1 is completed, not in_progress"
        )

    def test_a_long_one_shows_that_it_was_cut(self) -> None:
        assert one_line("x" * 201) == "x" * 197 + "..."

    def test_line_breaks_cannot_make_headers(self) -> None:
        assert one_line("a\r\nFleet-Replayed: true\u2028\x00b") == "a Fleet-Replayed: true? b"


class TestHeaders:
    def test_a_plain_success_needs_none(self) -> None:
        assert headers_of(Answer(200, b"{}")) is None

    def test_a_success_names_position_and_replay(self) -> None:
        answer = Answer(200, b"{}", position=7, replayed=True)

        assert headers_of(answer) == {"Fleet-Position": "7", "Fleet-Replayed": "true"}

    def test_a_refusal_has_both_headers_of_the_services_protocol(self) -> None:
        assert headers_of(Answer(409, b"{}", "conflict", "no")) == {
            "Nats-Service-Error-Code": "409",
            "Nats-Service-Error": "no",
        }


class Recorder:
    """A client that keeps what is published, and refuses some subjects."""

    is_connected = False
    max_payload = 1024

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def publish(self, subject: str, _body: bytes, **_: Any) -> None:
        await asyncio.sleep(0)
        if subject.startswith("bad"):
            raise ValueError("no such subject")
        self.sent.append(subject)


class TestResponder:
    async def test_answers_leave_in_order_past_a_broken_one(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = Recorder()
        responder = Responder(client)  # type: ignore[arg-type]  # all that it uses of a client

        for reply in ("a", "bad", "b", "bad", "c"):
            responder.respond("db.x.y", reply, Answer(200, b"{}"))
        await responder.flushed()
        responder.respond("db.x.y", "d", Answer(200, b"{}"))
        await responder.flushed()
        await responder.close()

        assert client.sent == ["a", "b", "c", "d"]
        assert caplog.text.count("could not be sent") == 2

    async def test_a_success_nobody_waits_for_is_dropped_silently(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = Recorder()
        responder = Responder(client)  # type: ignore[arg-type]  # all that it uses of a client

        with caplog.at_level(logging.DEBUG):
            responder.respond("db.x.y", "", Answer(200, b"{}"))
            responder.respond("db.x.y", "", Answer(409, b"{}", "conflict", "because"))
        await responder.close()

        assert client.sent == []
        assert "409 conflict: 'because'" in caplog.text
