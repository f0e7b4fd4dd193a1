"""What a Beads record says, as the description, state and category of a task or phase here."""

from collections.abc import Iterable
from datetime import datetime

from fleetbus.importing._beads_records import CLOSED, GATE, deferred_until, kind, status_word
from fleetbus.importing.plan import Category, Priority, SourceEdge, TaskStatus
from fleetbus.importing.records import (
    MAX_DESCRIPTION,
    MAX_PHASE_TEXT,
    MAX_REASON,
    MAX_TEXT,
    Record,
)

PRIORITIES: dict[object, Priority] = {0: "high", 1: "high", 2: "medium", 3: "low", 4: "low"}
CATEGORIES: dict[str, Category] = {"merge-request": "merge", "spike": "research"}
STATUSES: dict[str, TaskStatus] = {
    "": "pending",
    "open": "pending",
    "in_progress": "pending",
    "closed": "completed",
    "blocked": "blocked",
    "deferred": "blocked",
    "hooked": "blocked",
}
BLOCKED_REASONS = {
    "blocked": "Blocked in Beads",
    "deferred": "Deferred in Beads",
    "hooked": "Hooked in Beads: a worker there has it",
}

TEXTS = {"design": "Design", "acceptance_criteria": "Acceptance criteria", "notes": "Notes"}
LINES = {
    "assignee": "Assignee",
    "owner": "Owner",
    "created_by": "Created by",
    "sender": "Sender",
    "labels": "Labels",
    "estimated_minutes": "Estimated minutes",
    "created_at": "Created",
    "updated_at": "Updated",
    "started_at": "Started",
    "closed_at": "Closed",
    "closed_by_session": "Closed by session",
    "due_at": "Due",
    "defer_until": "Deferred until",
    "external_ref": "External reference",
    "spec_id": "Specification",
    "source_system": "Source system",
    "source_repo": "Source repository",
    "source_formula": "Source formula",
    "source_location": "Source location",
    "mol_type": "Molecule type",
    "work_type": "Work type",
    "await_type": "Waits for",
    "await_id": "Waits for the id",
    "waiters": "Waiters",
}
DERIVED = {
    "_type",
    "comment_count",
    "content_hash",
    "dependency_count",
    "dependent_count",
    "epic_closeable",
    "epic_closed_children",
    "epic_total_children",
    "parent",
}
"""Fields that say what others say already."""

MINUTE_NS = 60_000_000_000


def state(record: Record, now: datetime) -> tuple[TaskStatus, str | None]:
    """How far it is; what holds it back in Beads blocks it here, with that as the reason."""
    word = status_word(record)
    if word == CLOSED:
        return "completed", None
    if condition := _condition(record):
        return "blocked", condition
    if word not in STATUSES:
        record.note(f"status {word!r} is unknown; blocked until a person decides")
        return "blocked", f"Status {word!r} in Beads"
    until = deferred_until(record, now)
    if word == "in_progress":
        record.note("in_progress in Beads, pending here: no agent has a lease on it")
    if until and word in {"", "open", "in_progress", "deferred"}:
        return "blocked", f"Deferred in Beads until {until}"[:MAX_REASON]
    return STATUSES[word], BLOCKED_REASONS.get(word)


def category(record: Record) -> Category:
    """The category of a task, by the type that it has in Beads."""
    return CATEGORIES.get(kind(record), "execute")


def priority(record: Record) -> Priority:
    """One of three priorities for one of five."""
    value = record.value("priority") if "priority" in record.fields else 2
    if isinstance(value, int) and not isinstance(value, bool) and value in PRIORITIES:
        return PRIORITIES[value]
    record.note("priority is not one of 0 to 4, imported as 2")
    return "medium"


def description(record: Record, relations: Iterable[SourceEdge], *, phase: bool = False) -> str:
    """Its texts, what else is known of it as a list, its metadata and its comments."""
    return record.described(
        [
            ("Title", record.whole_name()),
            ("", record.text("description")),
            *record.headed(**TEXTS),
            ("In Beads", _list(record, relations, phase=phase)),
            ("Metadata", record.as_json("metadata")),
            ("Comments", _comments(record)),
        ],
        MAX_PHASE_TEXT if phase else MAX_DESCRIPTION,
    )


def _condition(record: Record) -> str | None:
    awaited = " ".join(filter(None, (record.line("await_type"), record.line("await_id"))))
    if kind(record) != GATE and not awaited:
        return None
    timeout = record.value("timeout")
    bound = ""
    if isinstance(timeout, int | float) and timeout >= MINUTE_NS:
        bound = f", for {timeout / MINUTE_NS:.12g} minutes at most"
    return f"Waits in Beads for {awaited or 'a gate'}{bound}"[:MAX_REASON]


def _list(record: Record, relations: Iterable[SourceEdge], *, phase: bool) -> str:
    named: dict[str, list[str]] = {}
    for edge in relations:
        named.setdefault(edge.kind, []).append(edge.depends_on)
    word, what = status_word(record), kind(record)
    lines = [
        f"- Type: {what}" if what not in {"", "task", "epic" if phase else ""} else "",
        f"- Status: {word}" if word not in {"", "open", CLOSED} else "",
        f"- Priority: {priority(record)}" if phase and "priority" in record.fields else "",
        record.listed(**LINES),
        record.listed(close_reason="Close reason") if phase or word != CLOSED else "",
        *(f"- {what.capitalize()}: {', '.join(refs)}" for what, refs in named.items()),
    ]
    return "\n".join(line for line in lines if line)


def _comments(record: Record) -> str:
    texts = []
    for place, entry in enumerate(record.entries("comments"), start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            record.note(f"comment {place} has no text and was left out")
            continue
        comment = Record(record.ref, entry, [])
        who = ", ".join(filter(None, (comment.line("author"), comment.line("created_at"))))
        said = record.fit(f"comment {place}", entry["text"], MAX_TEXT)
        texts.append(f"**{who}**\n\n{said}" if who else said)
    return "\n\n".join(texts)
