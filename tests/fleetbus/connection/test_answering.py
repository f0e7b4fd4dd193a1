import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleetbus.client.connection.answering import LONGEST, ReplyRule
from fleetbus.server.config import Settings

RULE = ReplyRule()


class TestReplyRule:
    @pytest.mark.parametrize(
        "reply",
        [
            "_INBOX.a",
            "_INBOX.key:7.AbC.9",
            "_R_.x.y",
            "_GR_.abc.def.ghi",
            "_INBOX.é",
            "_INBOX.a-b_c",
        ],
    )
    def test_inboxes_are_answered(self, reply: str) -> None:
        assert RULE.allows(reply)

    @pytest.mark.parametrize(
        "reply",
        [
            "events.task.completed.x",
            "db.tasks.create",
            "$JS.API.STREAM.DELETE.EVENTS",
            "$JS.ACK.EVENTS.c.1.2.3.4.5",
            "_fleetbus.published",
            "$SRV.PING",
            "back",
            "_INBOX",
            "_INBOX.",
            "_INBOX..a",
            "_INBOX.a.",
            "_INBOX.*",
            "_INBOX.>",
            "_INBOX.a b",
            "_INBOX.a\x00",
            "_INBOX.a\x0b",
            "_INBOX.a\x85",
            "_INBOX.a\u2028",
            "_INBOX.\ufffd",
            "_INBOXES.a",
            "_inbox.a",
            " _INBOX.a",
            "_INBOX.a\n",
            "_R_x.y",
            "x._INBOX.a",
            "_INBOX." + "a" * LONGEST,
        ],
    )
    def test_nothing_else_is(self, reply: str) -> None:
        assert not RULE.allows(reply)

    @given(st.text(max_size=30))
    def test_what_is_allowed_begins_as_an_inbox_and_is_a_subject(self, rest: str) -> None:
        for reply in (rest, f"_INBOX.{rest}"):
            if RULE.allows(reply):
                first, *others = reply.split(".")
                assert first in {"_INBOX", "_R_", "_GR_"}
                assert others
                assert all(others)
                assert not set(" *>\t\r\n\x00") & set(reply)

    def test_an_operator_adds_prefixes(self) -> None:
        rule = ReplyRule(Settings(reply_prefixes="mine, _OTHER.in.").added_reply_prefixes)
        assert rule.allows("mine.1")
        assert rule.allows("_OTHER.in.1")
        assert rule.allows("_INBOX.1")
        assert not rule.allows("mine")
        assert not rule.allows("_OTHER.out.1")

    @pytest.mark.parametrize(
        "prefix", ["events", "events.task", "db", "$JS.API", "_fleetbus", "$SYS", "*", "a.>", "a b"]
    )
    def test_but_none_where_answers_do_something(self, prefix: str) -> None:
        with pytest.raises(ValidationError):
            Settings(reply_prefixes=f"mine,{prefix}")
