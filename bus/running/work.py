"""What happens inside a transaction: handlers, deciders over many entities at once, reactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from bus.contract.entity import Entity
from bus.contract.errors import InvalidReference
from bus.contract.event import Event
from bus.contract.model import Reply
from bus.contract.refusals import Refusal
from bus.handling.decisions import Decision, Kept
from bus.handling.needs import Needed
from bus.handling.shapes import Handling, Periodic
from bus.kit.ids import uuid7
from bus.running.auditing import Records
from bus.running.calls import Call
from bus.running.fitting import decision_too_large, without_what_is_too_large
from bus.running.registry import Registry
from bus.running.transaction import Transaction
from bus.running.undeclared import report
from bus.storage import entities as _entities
from bus.storage.entities import Beside, Changes
from bus.storage.own import commit as _commit
from bus.storage.own import pulse as _pulse

MAX_REACTION_ROUNDS = 32
"""Reactions to reactions to …: more rounds than any chain of ours needs is a loop."""

PREPARED = "prepared"
"""Where the work finds what was prepared, for the parameter that takes it."""

SAME = "returns the entity that it was given as if it had changed it: say Decision.unchanged"
ANOTHER = "says unchanged of another entity than the one that it was given"


@dataclass(slots=True)
class Decided:
    """What a decider said to one call."""

    call: Call
    reply: Reply | None = None
    error: Exception | None = None
    otherwise: Exception | None = None
    """What the error is where nothing of it can be kept."""
    changed: bool = False
    kept: bool = False
    """Whether the transaction keeps something of it: it was accepted, or refused with a change."""


async def open_work(
    tx: Transaction, calls: Sequence[Call], *, keyed: bool = True
) -> _commit.Opening:
    """What work begins with: the clock, stored replies, and what a decider needs.

    That is the entities which are to be changed, locked, or else the first that are named at all.
    """
    keys = [call.key for call in calls if call.key is not None] if keyed else []
    caller = calls[0].caller  # a batch has one
    handling = calls[0].bound.handling
    for need in handling.needs if handling.own is None else [handling.own]:
        if ids := named(need, calls):
            opening = await _commit.open_with(tx.db, caller, keys, need.entity, ids, lock=need.own)
            tx.loaded[need.name] = opening.found
            return opening
    return await _commit.open_work(tx.db, caller, keys)


async def handle(registry: Registry, tx: Transaction, call: Call) -> Reply | Kept:
    """Run a handler."""
    handling = call.bound.handling
    records = Records(call)
    given = {
        "audit": records.audit,
        "db": tx.db,
        "emit": tx.emitter(handling, cause_of(call), call.traceparent),
        "now": tx.now,
        "new_id": _new_id(call),
        PREPARED: call.prepared,
    }
    given = _pick(registry, handling, given)
    reply: Reply | Kept = await handling.function(call.message, **given)
    _require_declared(call, reply)
    _record(tx, records, reply)
    tx.wrote = True
    return reply


async def gather(
    registry: Registry, tx: Transaction, calls: Sequence[Call], room: int
) -> list[Reply | Refusal | Kept]:
    """Run a handler of many commands; each call has its reply or its refusal, in their order."""
    handling = calls[0].bound.handling
    records = [Records(call) for call in calls] if "audits" in handling.dependencies else []
    given = {
        "audits": [one.audit for one in records],
        "db": tx.db,
        "emits": [tx.emitter(handling, cause_of(call), call.traceparent) for call in calls],
        "now": tx.now,
        "room": room,
        PREPARED: [call.prepared for call in calls],
    }
    commands = [call.message for call in calls]
    given = _pick(registry, handling, given)
    answers: list[Reply | Refusal | Kept] = await handling.function(commands, **given)
    for call, answer in zip(calls, answers, strict=True):
        _require_declared(call, answer)
    for one, answer in zip(records, answers, strict=bool(records)):
        _record(tx, one, answer)
    tx.wrote = True
    return answers


async def decide(
    registry: Registry, tx: Transaction, calls: Sequence[Call], max_payload: int
) -> list[Decided]:
    """Load every entity that the calls are about and decide each; the changes go with the rest."""
    handling = calls[0].bound.handling
    loaded = {need.name: await _load(tx, need, calls) for need in handling.needs}
    makes = "new_id" in handling.dependencies
    after: dict[UUID, Entity] = {}
    beside: list[Beside] = []
    decisions = []
    for call in calls:
        decided = Decided(call)
        decisions.append(decided)
        try:
            entities = [_entity(call, need, loaded[need.name]) for need in handling.entities]
            for need in handling.references:
                _entity(call, need, loaded[need.name])
            # The batcher keeps calls with one ``id`` apart, not those that name it otherwise.
            if entities and not handling.creates and (own := entities[0]) is not None:
                entities[0] = after.get(own.id, own)
            own = entities[0] if entities and not handling.creates else None
            new_id = _new_id(call) if makes else None
            given = {"now": tx.now, "new_id": new_id, PREPARED: call.prepared}
            given = _pick(registry, handling, given)
            decision = handling.function(call.message, *entities, **given)
            _require_declared(call, decision)
            if (refusal := decision_too_large(decision, own, max_payload)) is not None:
                decision = without_what_is_too_large(
                    call, entities, given, refusal, decision, max_payload=max_payload
                )
        except Exception as error:  # noqa: BLE001  one call's error is its own
            decided.error = error
            continue
        _note(tx, decided, decision, own)
        beside.extend(decision.beside)
        if decided.changed:
            after[decision.entity.id] = decision.entity
    if after or beside:
        kind: Literal["insert", "update"] = "insert" if handling.creates else "update"
        tx.changes = Changes(kind, list(after.values()), beside)
        tx.wrote = True
    return decisions


def following(registry: Registry, told: Iterable[Event]) -> dict[Handling, list[Event]]:
    """The reactions to what was told, each with the events that it is about."""
    found: dict[Handling, list[Event]] = {}
    for event in told:
        for handling in registry.reactions.get(type(event), ()):
            if handling.about is None or handling.about(event):
                found.setdefault(handling, []).append(event)
    return found


async def react(registry: Registry, tx: Transaction) -> None:
    """Run what must follow from what was told, and from what that tells, until nothing new is."""
    seen = 0
    for _ in range(MAX_REACTION_ROUNDS):
        told, seen = [told.event for told in tx.told[seen:]], len(tx.told)
        reactions = following(registry, told)
        if not reactions:
            return
        for handling, events in reactions.items():
            await _run_reaction(registry, tx, handling, events)
    raise RuntimeError(f"reactions do not come to rest after {MAX_REACTION_ROUNDS} rounds")


async def run_job(registry: Registry, job: Periodic, tx: Transaction, *, pulse: bool) -> int:
    """Run one step of a job; returns how much it handled. ``pulse``: whether one is recorded."""
    served_at = tx.now
    if pulse and "served_at" in job.handling.dependencies:
        served_at = min(tx.now, await _pulse.served_at(tx.db))
    given = {
        "db": tx.db,
        "emit": tx.emitter(job.handling, f"sweeper:{job.name}", None),
        "now": tx.now,
        "limit": job.limit,
        "served_at": served_at,
    }
    handled: int = await job.handling.function(**_pick(registry, job.handling, given))
    return handled


def cause_of(call: Call) -> str | None:
    """What events of a command name as their cause: its idempotency key."""
    return call.key


async def _run_reaction(
    registry: Registry, tx: Transaction, handling: Handling, events: Sequence[Event]
) -> None:
    trace = next((t.traceparent for t in tx.told if t.event is events[0]), None)
    given = {
        "db": tx.db,
        "emit": tx.emitter(handling, f"reaction:{handling.name}", trace),
        "now": tx.now,
    }
    await handling.function(events, **_pick(registry, handling, given))


async def _load(tx: Transaction, need: Needed, calls: Sequence[Call]) -> dict[UUID, Entity]:
    if need.name in tx.loaded:
        return tx.loaded[need.name]
    ids = named(need, calls)
    return await _entities.load(tx.db, need.entity, ids) if ids else {}


def named(need: Needed, calls: Iterable[Call]) -> set[UUID]:
    """The ids of the entities that calls need for one parameter."""
    return {id_ for call in calls if (id_ := getattr(call.message, need.field)) is not None}


def _entity(call: Call, need: Needed, loaded: dict[UUID, Entity]) -> Entity | None:
    id_ = getattr(call.message, need.field)
    if id_ is None and need.optional:
        return None
    if id_ in loaded:
        return loaded[id_]
    if need.own:
        raise need.entity.not_found(id=id_)
    if need.may_be_missing:
        return None
    raise InvalidReference(field=need.field, entity=need.entity.noun)


def _note(tx: Transaction, decided: Decided, decision: Decision[Any], own: Entity | None) -> None:
    handling = decided.call.bound.handling
    decided.changed = decision.changed if own is None else decision.entity is not own
    if decided.changed != decision.changed:
        report(handling, SAME if decision.changed else ANOTHER, strict=tx.strict)
    decided.reply, decided.error = decision.reply, decision.refusal
    decided.otherwise = decision.otherwise
    decided.kept = decision.refusal is None or decided.changed
    emit = tx.emitter(handling, cause_of(decided.call), decided.call.traceparent)
    for event in decision.events:
        emit(event)


def _record(tx: Transaction, records: Records, said: Reply | Refusal | Kept) -> None:
    """Have what was put on record written, unless nothing of the command is kept."""
    if records.rows and not isinstance(said, Refusal):
        records.require_no_secrets(said)
        tx.audited += records.rows


def _require_declared(call: Call, said: Reply | Refusal | Kept | Decision[Any]) -> None:
    """Fail what would be kept of a refusal that nobody has declared: it is a bug."""
    refusal = said.refusal if isinstance(said, (Kept, Decision)) else None
    if refusal is not None and not isinstance(refusal, call.bound.may_raise):
        raise refusal


def _new_id(call: Call) -> UUID:
    """A fresh id that outlives a repetition, or the one that the caller gave to what it creates.

    An ``id`` that is required names what is there already; only an optional one is for something
    new.
    """
    field = call.bound.operation.model_fields.get("id")
    given: UUID | None = call.message.id if field and not field.is_required() else None
    if given is not None:
        return given
    if call.new_id is None:
        call.new_id = uuid7()
    return call.new_id


def _pick(registry: Registry, handling: Handling, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a function takes of this, with what it is given of what the process has."""
    picked = {name: given[name] for name in handling.dependencies}
    if handling.prepared_as:
        picked[handling.prepared_as] = given[PREPARED]
    return {**picked, **registry.given_to(handling)} if handling.provided else picked
