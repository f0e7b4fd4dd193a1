"""Texts and results of an agent and its tasks, made storable; the rest goes to the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nats.errors import MaxPayloadError
from pydantic import JsonValue

from bus.contract.refusals import Refusal
from fleetbus.client import storable

SUMMARY_CHARACTERS = 20_000
REASON_CHARACTERS = 2_000
BEGINNING_CHARACTERS = 4_000
"""How much of a result that is too large is stored as its beginning."""

MAX_QUESTIONS = 100

SHORT_CHARACTERS = 500
"""What is left of each word where even what fits its field was refused."""

IN_THE_LOG = "; more of it is in the agent's log"

BAD_REQUEST, TOO_LARGE = 400, 413


def is_too_much(failure: Exception) -> bool:
    """Whether it was refused for its contents, so that less of it may be accepted."""
    if isinstance(failure, Refusal):
        return failure.status in {BAD_REQUEST, TOO_LARGE}
    return isinstance(failure, MaxPayloadError)


class Words:
    """Makes values storable; those that are cut are appended to the log in full, as JSON lines."""

    def __init__(self, log: Callable[[str], None], **about: Any) -> None:
        self._log = log
        self._about = about
        self._logged: set[str] = set()

    def summary(self, said: object) -> str | None:
        """The outcome; None stays None."""
        return None if said is None else self._text("summary", said, SUMMARY_CHARACTERS)

    def reason(self, said: object) -> str:
        """The reason, never blank."""
        reason = self._text("reason", said, REASON_CHARACTERS)
        return reason if reason.strip() else "No reason was given."

    def result(self, made: object) -> JsonValue:
        """JSON that fits its field: the value, or its beginning with a mark."""
        value = storable.json_value(made)
        if storable.fits(value):
            return value
        self._keep("result", value)
        return storable.beginning(value, characters=BEGINNING_CHARACTERS, rest=IN_THE_LOG)

    def questions(self, asked: Sequence[object]) -> list[dict[str, JsonValue]]:
        """Questions as JSON objects that fit together; of too many, the first."""
        read = [storable.json_object(question) for question in asked]
        if len(read) > MAX_QUESTIONS:
            left_out = f"left out: {len(read) - MAX_QUESTIONS + 1:,} questions"
            read = [*read[: MAX_QUESTIONS - 1], {"fleetbus": left_out + IN_THE_LOG}]
            self._keep("questions", [storable.json_object(question) for question in asked])
        if storable.fits(list(read)):
            return read
        self._keep("questions", list(read))
        short = SHORT_CHARACTERS
        return [
            storable.beginning(question, characters=short, rest=IN_THE_LOG) for question in read
        ]

    def progress(self, made: object) -> dict[str, JsonValue]:
        """The progress, as a JSON object that fits; the rest is stored nowhere else."""
        value = storable.json_object(made)
        fitting = storable.fits(value)
        return value if fitting else storable.beginning(value, characters=BEGINNING_CHARACTERS)

    def short(self, what: str, said: object) -> str:
        """The same text in a few words, after more of it was refused; never blank."""
        if said is not None:
            self._keep(what, storable.text(said))
        word = storable.text(said or "", SHORT_CHARACTERS, rest=IN_THE_LOG)
        return word if word.strip() else "It was refused as too large" + IN_THE_LOG + "."

    def short_result(self, made: object) -> JsonValue:
        """A mark in place of a result, after more of it was refused; None stays None."""
        if made is None:
            return None
        value = storable.json_value(made)
        self._keep("result", value)
        return storable.beginning(value, characters=SHORT_CHARACTERS, rest=IN_THE_LOG)

    def _text(self, what: str, said: object, limit: int) -> str:
        whole = storable.text(said)
        if len(whole) > limit:
            self._keep(what, whole)
        return storable.cut(whole, limit, rest=IN_THE_LOG)

    def _keep(self, what: str, value: JsonValue) -> None:
        if what not in self._logged:
            self._logged.add(what)
            if isinstance(value, str):
                value = storable.cut(value, storable.MAX_CHARACTERS)
            self._log(storable.as_json({**self._about, what: value}))
