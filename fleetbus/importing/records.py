"""One record of a source, read field by field; nothing that is cut or replaced goes unsaid."""

import codecs
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fleetbus.client import storable
from fleetbus.importing.plan import Note, Plan, PlanUnreadable

MAX_NAME = 500
MAX_DESCRIPTION = 100_000
MAX_PHASE_TEXT = 60_000
"""Characters that fit a document whatever they are: four bytes each at most."""

MAX_DESCRIPTION_BYTES = 300 * 1024
"""Of a description in JSON, where control characters have six each: it must fit into a message."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a field that are read; a description is cut as a whole."""

MAX_SUMMARY = 20_000
MAX_REASON = 2_000
MAX_REF = 200
MAX_FIELD = 2_000
"""Characters of a field that is one line of a list."""

LEAST = 1_000
"""Characters that a section keeps where the whole is too long."""

_DIGEST = 12
_MAYBE_JSON = re.compile(rb"^\s*[{\[]", re.MULTILINE)

Sections = Sequence[tuple[str, str]]
"""Headings, the first of them empty, each with its text."""


class RecordUnreadable(ValueError):
    """The record cannot be imported at all."""


class Record:
    """The fields of a source record, and the notes taken while reading them.

    It knows which fields were read, so that the others can be named.
    """

    def __init__(self, ref: str, fields: Mapping[str, object], notes: list[Note]) -> None:
        self.ref = ref
        self.fields = fields
        self._notes = notes
        self._noted: set[str] = set()
        self._read: set[str] = set()

    def note(self, text: str) -> None:
        """Say something about the record, once."""
        if text not in self._noted:
            self._noted.add(text)
            self._notes.append(Note(self.ref, text))

    def value(self, key: str) -> object:
        """The field as it is; None if it is absent."""
        self._read.add(key)
        return self.fields.get(key)

    def flag(self, key: str) -> bool:
        """Whether the field says yes."""
        return str(self.value(key)).strip().lower() in {"true", "1", "yes"}

    def text(self, key: str, limit: int = MAX_TEXT) -> str:
        """The field as text that fits; empty if it is absent or no text."""
        value = self.value(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.note(f"{key} is not a text and was left out")
            return ""
        return self.fit(key, value, limit)

    def line(self, key: str) -> str:
        """The field as one line, whatever it is; empty if there is nothing in it."""
        value = self.value(key)
        if not value or isinstance(value, bool):
            return ""
        if isinstance(value, list):
            value = ", ".join(map(_plain, value))
        return " ".join(self.fit(key, _plain(value), MAX_FIELD).split())

    def fit(self, key: str, value: str, limit: int) -> str:
        """The text without what the database cannot keep, cut at the limit."""
        text, replaced = storable.replaced(value)
        if replaced:
            self.note(f"{key} had {replaced} characters that cannot be stored, now U+FFFD")
        text = text.strip()
        if len(text) > limit:
            self.note(f"{key} was cut from {len(text)} to {limit} characters")
        return storable.cut(text, limit)

    def name(self, key: str = "title") -> str:
        """The title, or the ref where there is none."""
        title = self.text(key, MAX_NAME)
        if not title:
            self.note(f"{key} is empty; the id stands in its place")
        return title or self.ref

    def whole_name(self, key: str = "title") -> str:
        """The title where it is too long for a name; else empty."""
        title = self.value(key)
        if not isinstance(title, str) or len(title.strip()) <= MAX_NAME:
            return ""
        return storable.text(title.strip(), MAX_TEXT)

    def sections_of(self, **headings: str) -> Sections:
        """The fields that are there, each with its heading."""
        return [(heading, self.block(key)) for key, heading in headings.items()]

    def block(self, key: str) -> str:
        """The field as Markdown: a text, a list of what is in it, or JSON."""
        value = self.value(key)
        if isinstance(value, list):
            items = "\n".join(f"- {_plain(item)}" for item in value)
            return self.fit(key, items, MAX_TEXT)
        return self.text(key) if isinstance(value, str) else self.as_json(key)

    def bullets(self, **labels: str) -> str:
        """The fields that are there as a list, a line for each."""
        found = [(label, self.line(key)) for key, label in labels.items()]
        return "\n".join(f"- {label}: {line}" for label, line in found if line)

    def as_json(self, key: str) -> str:
        """The field as JSON in a block of code; empty if there is nothing in it."""
        value = self.value(key)
        if not value:
            return ""
        if isinstance(value, str):
            return self.text(key)
        return f"```json\n{storable.as_json(storable.json_value(value))}\n```"

    def description_of(self, sections: Sections, limit: int = MAX_DESCRIPTION) -> str:
        """Sections as one text; if it is too long, the longest of them are cut."""
        parts = [
            f"## {heading}\n\n{text}" if heading else text for heading, text in sections if text
        ]
        total = len("\n\n".join(parts))
        text = _cut(parts, limit)
        while (size := len(storable.as_json(text).encode())) > MAX_DESCRIPTION_BYTES:
            text = _cut(parts, len(text) * MAX_DESCRIPTION_BYTES // size - 1)
        if len(text) < total:
            self.note(f"description was cut from {total} to {len(text)} characters")
        return text

    def not_kept(self, known: Collection[str] = ()) -> Iterable[Note]:
        """The fields with something in them that nobody has read, save those that are ``known``."""
        known = {"id", *known, *self._read}
        for key, value in self.fields.items():
            if value and key not in known:
                yield Note(self.ref, f"{storable.text(key, 100)} is not kept")

    def entries(self, key: str) -> Sequence[object]:
        """The field as a list; empty if it is absent or no list."""
        value = self.value(key)
        if isinstance(value, list):
            return value
        if value is not None:
            self.note(f"{key} is not a list and was left out")
        return ()


def _cut(parts: Sequence[str], limit: int) -> str:
    """Paragraphs as one text that fits, by what is cut from the longest of them."""
    parts = list(parts)
    while (excess := len("\n\n".join(parts)) - limit) > 0 and any(
        len(part) > LEAST for part in parts
    ):
        longest = max(range(len(parts)), key=lambda place: len(parts[place]))
        parts[longest] = storable.cut(parts[longest], max(len(parts[longest]) - excess, LEAST))
    return storable.cut("\n\n".join(parts), limit)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else storable.as_json(storable.json_value(value))


def digest(text: str) -> str:
    """A few letters and digits by which a text can be found again."""
    return hashlib.sha256(storable.text(text).encode()).hexdigest()[:_DIGEST]


def external_ref(source_id: str) -> str:
    """The id as the database keeps it; one that is too long ends in a digest of the whole."""
    ref = storable.text(source_id).strip()
    if len(ref) <= MAX_REF:
        return ref
    return f"{ref[: MAX_REF - _DIGEST - 1]}~{digest(ref)}"


def parse_json(text: str) -> object:
    """Parse JSON; whatever is wrong with the text is a RecordUnreadable."""
    try:
        parsed: object = json.loads(text, strict=False)
    except RecursionError:
        raise RecordUnreadable("not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise RecordUnreadable(f"not JSON: {error.msg} at {place}column {error.colno}") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise RecordUnreadable(f"not JSON: {error}") from None
    return parsed


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text; bytes that are none become halves of surrogate pairs.

    A text that has such is stored with U+FFFD in their place, and a note says so.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanUnreadable(f"{path} cannot be read: {error.strerror}") from error
    if not _MAYBE_JSON.search(content.removeprefix(codecs.BOM_UTF8)):
        _refuse_binary(path, content)
    return content.decode("utf-8-sig", errors="surrogateescape")


def _refuse_binary(path: Path, content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise PlanUnreadable(f"{path} is not UTF-8 text (byte {error.start})") from error
    if b"\x00" in content:
        raise PlanUnreadable(f"{path} is a binary file, not text")


def require_records(plan: Plan, path: Path) -> Plan:
    """Refuse a file in which there is nothing, or nothing that could be read."""
    if plan.records_read == 0:
        raise PlanUnreadable(f"{path} is empty")
    if len(plan.problems) == plan.records_read:
        first = plan.problems[0]
        raise PlanUnreadable(f"{path} holds no plan of this kind: {first.where}: {first.text}")
    return plan
