"""The records of a Beads file: what is work, what is none, and what a record says of itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fleetbus.client import storable
from fleetbus.importing.plan import Note, Problem, SkippedRecord
from fleetbus.importing.records import (
    MAX_NAME,
    MAX_REASON,
    Record,
    RecordUnreadable,
    digest,
    external_ref,
    parse_json,
)

TYPES = {
    "enhancement": "feature",
    "feat": "feature",
    "dec": "decision",
    "adr": "decision",
    "investigation": "spike",
    "timebox": "spike",
    "user-story": "story",
    "user_story": "story",
    "ms": "milestone",
}
"""Other names that Beads has for its types."""

NOT_WORK = {"agent", "convoy", "event", "message", "molecule", "rig", "role", "slot"}
"""Types of records that nobody works off."""

GATE = "gate"
CLOSED, PINNED, TOMBSTONE = "closed", "pinned", "tombstone"

FAILURES = (
    "failed",
    "rejected",
    "wontfix",
    "won't fix",
    "canceled",
    "cancelled",
    "abandoned",
    "blocked",
    "error",
    "timeout",
    "aborted",
)
"""Words in a close reason by which Beads knows that a record failed."""

_FAR_YEAR = re.compile(r"\+?\d{5,}-")


@dataclass(slots=True)
class Source:
    """What was found in a file."""

    work: dict[str, Record] = field(default_factory=dict)
    markers: dict[str, Record] = field(default_factory=dict)
    """Records that are no work; others may name them all the same."""
    skipped: list[SkippedRecord] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    records_read: int = 0

    def __contains__(self, ref: str) -> bool:
        return ref in self.work or ref in self.markers

    def record(self, ref: str) -> Record:
        """The record with this ref, work or not."""
        return self.work[ref] if ref in self.work else self.markers[ref]

    def records(self) -> Mapping[str, Record]:
        """All of them."""
        return {**self.work, **self.markers}


def read_lines(lines: Iterable[str]) -> Source:
    """Read records, one a line; whatever is wrong with a line is a problem of that line."""
    source = Source()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source.records_read += 1
        try:
            _read_record(parse_json(line), number, source)
        except RecordUnreadable as error:
            source.problems.append(Problem(f"line {number}", str(error)))
    return source


def kind(record: Record) -> str:
    """The type of a record, by the name that Beads has for it."""
    word = record.text("issue_type", MAX_NAME) or record.text("type", MAX_NAME)
    return TYPES.get(word.lower(), word.lower())


def status_word(record: Record) -> str:
    """The status as Beads writes it."""
    return record.text("status", MAX_REASON).lower().replace("-", "_").replace(" ", "_")


def is_over(record: Record) -> bool:
    """Whether nothing waits for it any more: closed, deleted, or pinned for good."""
    if status_word(record) in {CLOSED, PINNED, TOMBSTONE}:
        return True
    return record.flag("pinned") or bool(record.value("deleted_at"))


def has_failed(record: Record) -> bool:
    """Whether it was closed for a reason that is a failure."""
    reason = record.text("close_reason").lower()
    return status_word(record) == CLOSED and any(word in reason for word in FAILURES)


def deferred_until(record: Record, now: datetime) -> str | None:
    """Until when a record is put off, if that is still to come; what is no date puts it off too."""
    stated = record.line("defer_until")
    if not stated or _FAR_YEAR.match(stated):
        return stated or None
    try:
        moment = datetime.fromisoformat(stated)
    except ValueError:
        record.note("defer_until is not a date; blocked until a person decides")
        return stated
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return stated if moment > now else None


def _read_record(parsed: object, number: int, source: Source) -> None:
    if not isinstance(parsed, dict):
        raise RecordUnreadable("not a JSON object")
    if "_schema" in parsed:
        source.skipped.append(SkippedRecord(f"line {number}", "header"))
        return
    if parsed.get("_type") == "memory":
        key = external_ref(storable.text(parsed.get("key") or f"line {number}"))
        source.skipped.append(SkippedRecord(key, "memory"))
        return
    stated = _stated_id(parsed, source)
    ref = external_ref(stated)
    if ref in source:
        raise RecordUnreadable(f"duplicate id {ref}")
    record = Record(ref, parsed, source.notes)
    if reason := _reason_to_skip(record):
        source.markers[ref] = record
        source.skipped.append(SkippedRecord(ref, reason))
        return
    source.work[ref] = record
    if ref != record.value("id"):
        changed = "id" in parsed and parsed["id"]
        record.note(
            "the id was changed to one that can be stored"
            if changed
            else "has no id; it is found again by its title"
        )


def _stated_id(parsed: Mapping[str, object], source: Source) -> str:
    stated, title = parsed.get("id"), parsed.get("title")
    if isinstance(stated, str) and stated.strip():
        return stated
    absent = stated is None or stated == ""
    if not (absent and isinstance(title, str) and title.strip()):
        raise RecordUnreadable("no id")
    made = unique = f"title~{digest(title.strip())}"
    copies = 1
    while unique in source:
        copies += 1
        unique = f"{made}~{copies}"
    return unique


def _reason_to_skip(record: Record) -> str | None:
    word, what = status_word(record), kind(record)
    if word == TOMBSTONE or record.value("deleted_at"):
        return TOMBSTONE
    if what in NOT_WORK:
        return f"{what} record"
    if record.flag("is_template"):
        return "template"
    if record.flag("ephemeral") or record.flag("wisp"):
        return "wisp"
    if word == PINNED or (record.flag("pinned") and word != CLOSED):
        return PINNED
    return None
