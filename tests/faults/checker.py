"""Judges a history: what the clients saw against what there is once all is healed and at rest.

In the manner of Jepsen (https://jepsen.io): clients note what they asked and what they were told,
and nothing else is believed. Pure: no clock, no network, no database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.evidence import (
    KEPT,
    SAME_VERSION,
    Evidence,
    entities_of,
    entity_of,
    is_as_told,
    most_effects,
    name_of,
)
from tests.faults.history import Exchange, Fault, History, outcome
from tests.faults.world import Repair, Row, Told, World

EXCUSED_AFTER = 10.0
"""Seconds after its sender gave up in which a fault still explains that no answer came."""


NOTICED_WITHIN = 30.0
"""Seconds after a loss within which the reconciler has found it."""


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


Rule = Callable[[Evidence], Iterator[str]]


def present(evidence: Evidence) -> Iterator[str]:
    """Every command that was answered with success took effect once, as its answer says."""
    for sent in evidence.commands:
        if outcome(sent) != "ok":
            continue
        first = next(exchange for exchange in sent if exchange.outcome == "ok")
        effects = evidence.effects(sent)
        wanted = entities_of(first)
        if len(effects) != len(wanted):
            yield f"{name_of(first)} had {len(effects)} effects, not {len(wanted)}"
            continue
        by_id = {row.entity_id: row for row in effects}
        for id_, body in wanted.items():
            if id_ not in by_id:
                yield f"{name_of(first)} was told of {id_}, the outbox was not"
            elif body is not None and entity_of(by_id[id_]) != body:
                yield f"{name_of(first)} was told another {id_} than the outbox"
        yield from _positions(evidence, first, effects)


def _positions(evidence: Evidence, exchange: Exchange, effects: list[Row]) -> Iterator[str]:
    position = exchange.replies[0].position
    highest = {max(r.position for r in evidence.transactions[row.xid]) for row in effects}
    if effects and highest != {position}:
        yield f"{name_of(exchange)} was told position {position}, its transaction has {highest}"


def at_most_once(evidence: Evidence) -> Iterator[str]:
    """A command that got no answer took effect once or not at all."""
    for sent in evidence.commands:
        effects = evidence.effects(sent)
        if outcome(sent) == "unknown" and len(effects) > most_effects(sent[0]):
            yield f"{name_of(sent[0])} took effect {len(effects)} times"


def nowhere(evidence: Evidence) -> Iterator[str]:
    """A command that was refused has left no trace anywhere."""
    told = "\n".join(event.data for event in evidence.world.stream)
    stored = "\n".join(map(str, evidence.world.tasks.values()))
    causes = Counter(event.cause for event in evidence.world.stream)
    for sent in evidence.commands:
        if outcome(sent) != "fail":
            continue
        first = sent[0]
        kept = KEPT.get(first.subject)
        left = [row for row in evidence.caused.get(first.key or "", []) if row.type != kept]
        if left:
            yield f"{name_of(first)} was refused and is in the outbox as {left[0].type}"
        if kept is None and first.key and causes[first.key]:
            yield f"{name_of(first)} was refused and is in the stream"
        if kept is None and first.value and (first.value in told or first.value in stored):
            yield f"{name_of(first)} was refused and its value {first.value} is there"


def zombie(evidence: Evidence) -> Iterator[str]:
    """Every committed change has its events in the stream."""
    for row in evidence.world.outbox:
        if row.event_id not in evidence.held:
            yield f"{row.type} at position {row.position} is not in the stream"


def mended(evidence: Evidence) -> Iterator[str]:
    """Events that a fault takes out of the stream are found missing, and no others ever are."""
    repairs = evidence.world.repairs
    losses = [fault for fault in evidence.history.faults if fault.loses]
    for repair in repairs:
        if not any(_explains(loss, repair) for loss in losses):
            yield f"{repair.said}, and nothing had been done to it"
    for loss in losses:
        if not any(_explains(loss, repair) for repair in repairs):
            yield f"nobody has noticed what {loss.name} took out"


def _explains(loss: Fault, repair: Repair) -> bool:
    return loss.began <= repair.at <= loss.ended + NOTICED_WITHIN


def ghost(evidence: Evidence) -> Iterator[str]:
    """Every event in the stream is in the outbox, word for word."""
    rows = {row.event_id: row for row in evidence.world.outbox}
    for told in evidence.world.stream:
        row = rows.get(told.event_id)
        if row is None:
            yield f"{told.type} at sequence {told.sequence} is not in the outbox"
            continue
        for name in ("type", "entity_id", "data", "position", "cause"):
            if getattr(row, name) != getattr(told, name):
                yield f"{name} of {told.type} at sequence {told.sequence} is not the outbox's"


def once(evidence: Evidence) -> Iterator[str]:
    """No event is in the stream twice."""
    for events in evidence.held.values():
        if len(events) > 1:
            at = ", ".join(str(told.sequence) for told in events)
            yield f"{events[0].type} of position {events[0].position} is at sequences {at}"


def tables(evidence: Evidence) -> Iterator[str]:
    """Every row agrees with the last event of its entity, except for a lease that an outage
    extended, and there is no row without an event."""
    last: dict[str, Row] = {}
    for row in evidence.world.outbox:
        if row.type.startswith("task.") and row.type not in SAME_VERSION:
            last[row.entity_id] = row
    for id_, task in evidence.world.tasks.items():
        if id_ not in last:
            yield f"task {id_} has no event"
        elif last[id_].type == "task.deleted":
            yield f"task {id_} is there although its deletion was told"
        elif not is_as_told(task, last[id_].body["task"], evidence.world.outages):
            yield f"task {id_} is not as {last[id_].type} at {last[id_].position} told it"
    for id_, row in last.items():
        if row.type != "task.deleted" and id_ not in evidence.world.tasks:
            yield f"task {id_} is gone and {row.type} was the last that was told of it"


def order(evidence: Evidence) -> Iterator[str]:
    """The versions of each entity follow each other without a gap, and its positions increase."""
    for id_, events in evidence.entities.items():
        version = 0
        for before, told in pairwise([None, *events]):
            assert told is not None
            found = entity_of(told)["version"]
            wanted = version if told.type in SAME_VERSION else version + 1
            if found != wanted:
                yield f"{told.type} of {id_} has version {found} where {wanted} is due"
            if before is not None and told.position <= before.position:
                yield f"{told.type} of {id_} at {told.position} comes after {before.position}"
            version = found


def causes(evidence: Evidence) -> Iterator[str]:
    """If one request was answered before another was sent, its events come first in the stream."""
    at = {told.event_id: told.sequence for told in reversed(evidence.world.stream)}
    answered: list[tuple[float, list[int], Exchange]] = []
    begun: list[tuple[float, list[int], Exchange]] = []
    for sent in evidence.commands:
        rows = evidence.effects(sent)
        sequences = [at[row.event_id] for row in rows if row.event_id in at]
        if not sequences:
            continue
        begun.append((min(exchange.sent for exchange in sent), sequences, sent[0]))
        ok = [exchange for exchange in sent if exchange.outcome == "ok"]
        if ok:
            answered.append((min(e.replies[0].at for e in ok), sequences, ok[0]))
    answered.sort(key=lambda item: item[0])
    begun.sort(key=lambda item: item[0])
    highest, whose, place = 0, None, 0
    for time, sequences, exchange in begun:
        while place < len(answered) and answered[place][0] < time:
            if max(answered[place][1]) > highest:
                highest, whose = max(answered[place][1]), answered[place][2]
            place += 1
        if whose is not None and min(sequences) < highest:
            yield f"{name_of(whose)} was answered before {name_of(exchange)} and comes after it"


def dependencies(evidence: Evidence) -> Iterator[str]:
    """A task is claimed only after the tasks that it waited for were completed or deleted."""
    waits = {
        row.entity_id: set(row.body.get("depends_on", ()))
        for row in evidence.world.outbox
        if row.type == "task.created"
    }
    done: set[str] = set()
    for told in sorted(evidence.world.stream, key=lambda told: told.sequence):
        if told.type in {"task.completed", "task.deleted"}:
            done.add(told.entity_id)
        elif told.type == "task.claimed" and (open_ := waits.get(told.entity_id, set()) - done):
            yield f"task {told.entity_id} is claimed before {min(open_)} is done"


def together(evidence: Evidence) -> Iterator[str]:
    """The events of a transaction follow each other in the stream, in the order of positions."""
    for xid, rows in evidence.transactions.items():
        held = [evidence.held[row.event_id][0] for row in rows if row.event_id in evidence.held]
        sequences = [told.sequence for told in held]
        if any(after != before + 1 for before, after in pairwise(sequences)):
            yield f"transaction {xid} is scattered over sequences {sequences}"


def leases(evidence: Evidence) -> Iterator[str]:
    """A task belongs to one agent at a time, and an attempt is completed at most once."""
    granted: dict[tuple[str, int], str] = {}
    for sent in evidence.commands:
        for exchange in sent:
            if exchange.subject == "db.tasks.claim" and exchange.outcome == "ok":
                for one in exchange.reply["tasks"]:
                    claim = one["task"]["id"], one["task"]["attempt"]
                    other = granted.setdefault(claim, exchange.value)
                    if other != exchange.value:
                        yield f"attempt {claim[1]} of {claim[0]} was given to two"
    for id_, events in evidence.entities.items():
        if events[0].type.startswith("task."):
            yield from _attempts(id_, [told for told in events if told.type not in SAME_VERSION])


def _attempts(id_: str, events: Sequence[Told]) -> Iterator[str]:
    status, attempt = "pending", 0
    completed: set[int] = set()
    for told in events:
        task = entity_of(told)
        if told.type == "task.claimed":
            if status != "pending":
                yield f"task {id_} is claimed while it is {status}"
            if task["attempt"] != attempt + 1:
                yield f"attempt {task['attempt']} of {id_} follows attempt {attempt}"
        if told.type == "task.completed":
            if status != "in_progress" or task["attempt"] in completed:
                yield f"attempt {task['attempt']} of {id_} is completed while it is {status}"
            completed.add(task["attempt"])
        status, attempt = task["status"], task["attempt"]


def crashes(evidence: Evidence) -> Iterator[str]:
    """Every agent that died has one event of its crash, however many processes noticed it."""
    begun: set[tuple[str, int]] = set()
    told: Counter[tuple[str, int]] = Counter()
    for row in evidence.world.outbox:
        if row.type in {"agent.registered", "agent.resumed"}:
            begun.add((row.entity_id, entity_of(row)["incarnation"]))
        elif row.type == "agent.crashed":
            told[row.entity_id, entity_of(row)["incarnation"]] += 1
    for id_, incarnation in begun | told.keys():
        if (count := told[id_, incarnation]) != 1 or (id_, incarnation) not in begun:
            yield f"incarnation {incarnation} of agent {id_} is told crashed {count} times"


def answered(evidence: Evidence) -> Iterator[str]:
    """A request has one answer, or something happened that explains why it has none."""
    for exchange in evidence.history.exchanges:
        if len(exchange.replies) > 1:
            yield f"{name_of(exchange)} was answered {len(exchange.replies)} times"
        elif not exchange.replies and not _excused(evidence.history, exchange):
            yield f"{name_of(exchange)} was never answered"


def same_reply(evidence: Evidence) -> Iterator[str]:
    """The same key has the same reply, byte for byte, and is never refused after it succeeded."""
    for sent in evidence.commands:
        ok = [exchange for exchange in sent if exchange.outcome == "ok"]
        if len({exchange.replies[0].body for exchange in ok}) > 1:
            yield f"{name_of(sent[0])} got different replies for one key"
        known = min((exchange.replies[0].at for exchange in ok), default=None)
        for exchange in sent:
            refused = exchange.replies and exchange.replies[0].status in {404, 409, 422}
            if known is not None and refused and exchange.sent > known:
                yield f"{name_of(exchange)} was refused after it had succeeded"


def at_rest(evidence: Evidence) -> Iterator[str]:
    """Once healed, the system comes to rest."""
    if evidence.world.rested is None:
        yield "something was still missing or unanswered at the limit"


def no_bug(evidence: Evidence) -> Iterator[str]:
    """No fault causes an internal error."""
    for exchange in evidence.history.exchanges:
        for reply in exchange.replies:
            if reply.status == 500:
                yield f"{name_of(exchange)} was answered {reply.body}"


RULES: dict[str, tuple[Rule, ...]] = {
    "No zombie": (zombie, mended, tables),
    "No ghost": (ghost, nowhere),
    "Once": (once,),
    "Order": (order, causes, dependencies),
    "Together": (together,),
    "Durable past the broker": (zombie, mended),
    "Idempotency": (present, at_most_once, same_reply),
    "Leases": (leases,),
    "Crashes": (crashes,),
    "Answers": (answered, no_bug),
    "Rest": (at_rest,),
}
"""The rules that judge each promise."""


def check(history: History, world: World) -> list[Violation]:
    """Every violation of every rule."""
    evidence = Evidence(history, world)
    rules = dict.fromkeys(rule for rules in RULES.values() for rule in rules)
    return [Violation(rule.__name__, text) for rule in rules for text in rule(evidence)]


def _excused(history: History, exchange: Exchange) -> bool:
    end = float("inf") if exchange.gave_up is None else exchange.gave_up + EXCUSED_AFTER
    return any(
        fault.excuses and fault.began <= end and fault.ended >= exchange.sent
        for fault in history.faults
    )
