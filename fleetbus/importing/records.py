"""One record of a source, read field by field; nothing that is cut or replaced goes unsaid."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetbus.importing.plan import Note, Plan, PlanUnreadable

MAX_NAME = 500
MAX_DESCRIPTION = 100_000
MAX_SUMMARY = 20_000
MAX_REASON = 2_000
MAX_REF = 200

# Postgres keeps no NUL in text, and half of a surrogate pair has no UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_DIGEST = 12


class RecordUnreadable(ValueError):
    """The record cannot be imported at all."""


class Record:
    """The fields of a source record, and the notes taken while reading them."""

    def __init__(self, ref: str, fields: Mapping[str, object], notes: list[Note]) -> None:
        self.ref = ref
        self.fields = fields
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(Note(self.ref, text))

    def text(self, key: str, limit: int = MAX_DESCRIPTION) -> str:
        """The field as text that fits; empty if it is absent or no text."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.note(f"{key} is not a text and was left out")
            return ""
        return self.fit(key, value, limit)

    def fit(self, key: str, value: str, limit: int) -> str:
        """The text without what the database cannot keep, cut at the limit."""
        storable, replaced = _UNSTORABLE.subn("\ufffd", value)
        if replaced:
            self.note(f"{key} had {replaced} characters that cannot be stored, now U+FFFD")
        storable = storable.strip()
        if len(storable) > limit:
            self.note(f"{key} was cut from {len(storable)} to {limit} characters")
        return storable[:limit]

    def name(self, key: str = "title") -> str:
        """The title, or the ref where there is none."""
        title = self.text(key, MAX_NAME)
        if not title:
            self.note(f"{key} is empty; the id stands in its place")
        return title or self.ref

    def sections(self, first: str, **headed: str) -> str:
        """Several text fields as one description: the first, then each under its heading."""
        parts = [self.text(first)]
        parts += [
            f"## {heading}\n\n{text}" for key, heading in headed.items() if (text := self.text(key))
        ]
        return self.fit("description", "\n\n".join(part for part in parts if part), MAX_DESCRIPTION)

    def entries(self, key: str) -> Sequence[object]:
        """The field as a list; empty if it is absent or no list."""
        value = self.fields.get(key)
        if isinstance(value, list):
            return value
        if value is not None:
            self.note(f"{key} is not a list and was left out")
        return ()


def external_ref(source_id: str) -> str:
    """The id as the database keeps it; one that is too long ends in a digest of the whole."""
    ref = _UNSTORABLE.sub("\ufffd", source_id).strip()
    if len(ref) <= MAX_REF:
        return ref
    digest = hashlib.sha256(ref.encode()).hexdigest()[:_DIGEST]
    return f"{ref[: MAX_REF - _DIGEST - 1]}~{digest}"


def parse_json(text: str) -> object:
    """Parse JSON; whatever is wrong with the text is a RecordUnreadable."""
    try:
        parsed: object = json.loads(text)
    except RecursionError:
        raise RecordUnreadable("not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise RecordUnreadable(f"not JSON: {error.msg} at {place}column {error.colno}") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise RecordUnreadable(f"not JSON: {error}") from None
    return parsed


def read_text(path: Path) -> str:
    """Read a file that must be UTF-8 text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PlanUnreadable(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanUnreadable(f"{path} is not UTF-8 text (byte {error.start})") from error
    if "\x00" in text:
        raise PlanUnreadable(f"{path} is a binary file, not text")
    return text


def require_records(plan: Plan, path: Path) -> Plan:
    """Refuse a file in which there is nothing, or nothing that could be read."""
    if plan.records_read == 0:
        raise PlanUnreadable(f"{path} is empty")
    if len(plan.problems) == plan.records_read:
        first = plan.problems[0]
        raise PlanUnreadable(f"{path} holds no plan of this kind: {first.where}: {first.text}")
    return plan
