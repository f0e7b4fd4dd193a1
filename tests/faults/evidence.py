"""A history and a world side by side, with what the rules look up in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from tests.faults.history import Exchange, History
from tests.faults.world import Outage, Row, Told, World

MAIN = {
    "db.tasks.create": ("task.created", ("task", "name")),
    "db.tasks.create_many": ("task.created", ("task", "name")),
    "db.tasks.update": ("task.updated", ("task", "name")),
    "db.tasks.claim": ("task.claimed", ("task", "claimed_by")),
    "db.tasks.complete": ("task.completed", ("task", "summary")),
    "db.tasks.block": ("task.blocked", ("task", "blocked_reason")),
    "db.tasks.release": ("task.released", ("reason",)),
    "db.tasks.retry": ("task.retried", ()),
    "db.tasks.delete": ("task.deleted", ()),
    "db.agents.register": ("agent.registered", ("agent", "name")),
    "db.agents.resume": ("agent.resumed", ()),
    "db.agents.crash": ("agent.crashed", ("reason",)),
}
"""The event that tells of a command, and where in it the command's unique value stands."""

KEPT = {"db.tasks.complete": "task.late_completion"}
"""What a refusal of this command may leave behind."""

SAME_VERSION = {"task.ready"}
"""Events that tell something of an entity without a change of it."""


class Evidence:
    """A history and a world, with what the rules look up in them."""

    def __init__(self, history: History, world: World) -> None:
        self.history = history
        self.world = world

    @cached_property
    def commands(self) -> list[list[Exchange]]:
        return [sent for sent in self.history.requests if sent[0].subject in MAIN]

    @cached_property
    def caused(self) -> dict[str, list[Row]]:
        found = defaultdict(list)
        for row in self.world.outbox:
            if row.cause:
                found[row.cause].append(row)
        return found

    @cached_property
    def valued(self) -> dict[tuple[str, Any], list[Row]]:
        """Rows without a cause by type and the unique value that they carry."""
        found = defaultdict(list)
        for kind, path in set(MAIN.values()):
            for row in self.world.outbox:
                if row.type == kind and row.cause is None and path:
                    found[kind, _at(row.body, path)].append(row)
        return found

    @cached_property
    def held(self) -> dict[str, list[Told]]:
        found = defaultdict(list)
        for told in self.world.stream:
            found[told.event_id].append(told)
        return found

    @cached_property
    def transactions(self) -> dict[int, list[Row]]:
        found = defaultdict(list)
        for row in self.world.outbox:
            found[row.xid].append(row)
        return found

    @cached_property
    def entities(self) -> dict[str, list[Told]]:
        """The events of each entity in the order of the stream, repeated ones left out."""
        found: dict[str, dict[str, Told]] = defaultdict(dict)
        for told in sorted(self.world.stream, key=lambda told: told.sequence):
            found[told.entity_id].setdefault(told.event_id, told)
        return {entity: list(events.values()) for entity, events in found.items()}

    def effects(self, sent: Sequence[Exchange]) -> list[Row]:
        """What the outbox has of a command: the events that tell of it itself."""
        first = sent[0]
        kind, _ = MAIN[first.subject]
        if first.key is not None:
            return [row for row in self.caused.get(first.key, []) if row.type == kind]
        return self.valued.get((kind, first.value), [])


def _at(body: dict[str, Any], path: Iterable[str]) -> Any:
    found: Any = body
    for name in path:
        found = found[name]
    return found


def entity_of(told: Told | Row) -> dict[str, Any]:
    """The task or the agent that an event tells of."""
    body = Row(0, 0, "", "", "", told.data).body
    entity: dict[str, Any] = body[told.type.partition(".")[0]]
    return entity


def entities_of(exchange: Exchange) -> dict[str, dict[str, Any] | None]:
    """What a successful reply says there is: ids, and bodies where it has them."""
    reply = exchange.reply
    if exchange.subject == "db.tasks.claim":
        return {one["task"]["id"]: one["task"] for one in reply["tasks"]}
    if exchange.subject == "db.tasks.create_many":
        return {item["id"]: None for item in reply["items"]}
    return {reply["id"]: None if exchange.subject == "db.tasks.delete" else reply}


def most_effects(exchange: Exchange) -> int:
    """How many events of its own a command can have."""
    if exchange.subject == "db.tasks.create_many":
        return len(exchange.body["items"])
    return int(exchange.body.get("limit", 1))


def is_as_told(task: dict[str, Any], told: dict[str, Any], outages: Iterable[Outage]) -> bool:
    """Whether a row is as its last event tells; after an outage its lease has its full length."""
    if task == told:
        return True
    if task | {"lease_expires_at": told.get("lease_expires_at")} != told:
        return False
    now, before = task.get("lease_expires_at"), told.get("lease_expires_at")
    return None not in {now, before} and _time(str(now)) in _ends(told, outages)


def _ends(told: dict[str, Any], outages: Iterable[Outage]) -> set[datetime]:
    """When a lease may end: whether an outage was over before a claim or after it is open where
    both were at once."""
    length = timedelta(seconds=told["lease_seconds"])
    ends = {_time(told["lease_expires_at"])}
    for outage in outages:
        if outage.ended >= _time(told["updated_at"]):
            ends |= {max(end, outage.ended + length) for end in ends if end > outage.began}
    return ends


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def name_of(exchange: Exchange) -> str:
    return f"request {exchange.number} ({exchange.subject} of {exchange.client})"
