"""Checks of what a fleet did, from the events alone: nobody's own word is taken for it.

Each check looks at a history, the deliveries of the stream in their order, and answers with what
is wrong: nothing, if all is well.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from bus.contract.entity import Entity
from bus.contract.event import Event
from contracts.planning.phases import Phase
from contracts.planning.tasks import (
    Task,
    TaskBlocked,
    TaskClaimed,
    TaskCompleted,
    TaskCreated,
    TaskLeaseExpired,
    TaskReleased,
    TaskRetried,
)
from fleetbus.client.events import Delivery

History = Sequence[Delivery[Event]]
Edge = tuple[str, str]
"""Two external refs: the first waits for the second."""

UNTOLD = {"lease_expires_at", "last_heartbeat_at", "last_progress_at", "progress"}
"""A sign of life is no change: neither version nor event tell it."""

TAKEN_BACK = TaskReleased | TaskRetried | TaskLeaseExpired | TaskBlocked
"""After these nobody has the task any more."""

MADE = (".created", ".registered")
"""What the type of an event ends with that tells of something new."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, how many things it was checked for, and where it was broken."""

    promise: str
    count: int
    violations: tuple[str, ...]

    @property
    def kept(self) -> bool:
        return not self.violations


def verify(history: History, stored: Iterable[Entity], edges: Iterable[Edge]) -> list[Check]:
    """Check everything that a history, the tables and the dependencies of the plan must satisfy."""
    stored, edges = list(stored), list(edges)
    return [
        told_once(history),
        gapless(history),
        done_once(history),
        in_order(history, edges),
        as_stored(history, stored),
        nothing_left(stored, edges),
    ]


def told_once(history: History) -> Check:
    """No event is in the stream twice."""
    counts = Counter(delivery.id for delivery in history)
    twice = [f"event {event} is there {n} times" for event, n in counts.items() if n > 1]
    return Check("every event is in the stream once", len(counts), tuple(twice))


def gapless(history: History) -> Check:
    """Each entity begins with version 1 and goes on by one.

    A fact that changes nothing, such as that a task became ready, repeats version and content.
    """
    last: dict[str, Entity] = {}
    wrong: list[str] = []
    for delivery in history:
        entity = entity_of(delivery)
        before = last.get(delivery.entity_id)
        version = before.version if before else 0
        if before is None and not delivery.type.endswith(MADE):
            wrong.append(f"{_named(entity)} begins with {delivery.type}")
        elif before and entity.version == version:
            if differing := _differing(before, entity):
                wrong.append(f"{_named(entity)} changed {differing} within version {version}")
        elif entity.version != version + 1:
            wrong.append(f"{_named(entity)} goes from version {version} to {entity.version}")
        last[delivery.entity_id] = entity
    return Check(
        "the versions of every entity are in the stream without a gap", len(last), tuple(wrong)
    )


def done_once(history: History) -> Check:
    """Each task that anybody began was had by one attempt at a time, and completed by the last.

    An attempt ends with the completion, or when the task is taken back from it.
    """
    facts: defaultdict[str, list[Delivery[Event]]] = defaultdict(list)
    for delivery in history:
        if isinstance(delivery.event, TaskClaimed | TaskCompleted | TAKEN_BACK):
            facts[delivery.entity_id].append(delivery)
    wrong = [sentence for told in facts.values() if (sentence := _wrong_attempts(told))]
    promise = "every task was held by one attempt at a time and completed once"
    return Check(promise, len(facts), tuple(wrong))


def in_order(history: History, edges: Iterable[Edge]) -> Check:
    """No task was claimed before everything that it depends on was completed."""
    awaited: defaultdict[str, list[str]] = defaultdict(list)
    for ref, depends_on in edges:
        awaited[ref].append(depends_on)
    completed: set[str | None] = set()
    count, wrong = 0, []
    for delivery in history:
        match delivery.event:
            case TaskCreated(task=task) | TaskCompleted(task=task) if task.status == "completed":
                completed.add(task.external_ref)
            case TaskClaimed(task=task):
                needs = awaited.get(task.external_ref or "", [])
                count += len(needs)
                early = [ref for ref in needs if ref not in completed]
                wrong += [f"{_named(task)} was claimed before {ref} was completed" for ref in early]
    return Check(
        "no task was begun before those that it depends on were completed", count, tuple(wrong)
    )


def as_stored(history: History, stored: Iterable[Entity]) -> Check:
    """What was told last of each entity is what the tables say, and neither has more."""
    told = {delivery.entity_id: delivery for delivery in history}
    entities = {str(entity.id): entity for entity in stored}
    wrong = [f"{_named(entities[key])} has no event" for key in entities.keys() - told.keys()]
    for key, delivery in told.items():
        entity, deleted = entity_of(delivery), delivery.type.endswith(".deleted")
        if key not in entities:
            wrong += [] if deleted else [f"{_named(entity)} has events and is not there"]
        elif deleted:
            wrong.append(f"{_named(entity)} is deleted by its event and is there")
        elif differing := _differing(entity, entities[key]):
            wrong.append(f"{_named(entity)} differs in {differing} between event and table")
    return Check("events and tables agree", len(entities), tuple(wrong))


def _below(tasks: Mapping[str, Task], held: AbstractSet[str]) -> set[str]:
    """The tasks below one that is blocked or held up."""
    refs = {task.id: ref for ref, task in tasks.items()}
    stopped = held | {ref for ref, task in tasks.items() if task.status == "blocked"}
    below: set[str] = set()
    while (
        more := {
            ref
            for ref, task in tasks.items()
            if task.parent_task_id and refs.get(task.parent_task_id) in stopped | below
        }
        - below
    ):
        below |= more
    return below


def nothing_left(stored: Iterable[Entity], edges: Iterable[Edge]) -> Check:
    """Everything that could be finished is, and phases begin and end by themselves."""
    tasks, phases = _plan_of(stored)
    done = {ref for ref, entity in (tasks | phases).items() if entity.status == "completed"}
    held = {ref for ref, awaited in edges if awaited not in done}
    held |= _below(tasks, held)
    begun = {phase.id for phase in phases.values() if phase.status == "in_progress"}
    wrong = [
        f"{_named(task)} is {task.status} and nothing holds it up"
        for ref, task in tasks.items()
        if task.status == "in_progress"
        or (task.status == "pending" and ref not in held and task.phase_id in {*begun, None})
    ]
    for ref, phase in phases.items():
        within = [task for task in tasks.values() if task.phase_id == phase.id]
        if phase.status in {"pending", "approved"} and ref not in held:
            wrong.append(f"{_named(phase)} is {phase.status} and nothing holds it up")
        elif phase.id in begun and _all_done(within):
            wrong.append(f"{_named(phase)} is in progress and all its tasks are completed")
    return Check("everything that can be finished is finished", len(tasks), tuple(wrong))


def entity_of(delivery: Delivery[Event]) -> Entity:
    """The entity that an event tells of, as it was after the change."""
    entity: Entity = getattr(delivery.event, delivery.event.fact.entity)
    return entity


def _plan_of(stored: Iterable[Entity]) -> tuple[dict[str, Task], dict[str, Phase]]:
    tasks: dict[str, Task] = {}
    phases: dict[str, Phase] = {}
    for entity in stored:
        if isinstance(entity, Task):
            tasks[entity.external_ref or str(entity.id)] = entity
        elif isinstance(entity, Phase):
            phases[entity.external_ref or str(entity.id)] = entity
    return tasks, phases


def _all_done(tasks: list[Task]) -> bool:
    """Whether these were completed, one of them by the fleet: of itself nothing ends a phase."""
    return any(task.attempt for task in tasks) and all(t.status == "completed" for t in tasks)


def _differing(one: Entity, other: Entity) -> str:
    fields = type(one).model_fields.keys() - UNTOLD
    return ", ".join(sorted(name for name in fields if getattr(one, name) != getattr(other, name)))


def _wrong_attempts(told: list[Delivery[Event]]) -> str:
    """What is wrong with the claims of a task and with how each of them ended."""
    task = entity_of(told[0])
    holder, completed = 0, False
    for delivery in told:
        attempt = _attempt(entity_of(delivery))
        match delivery.event:
            case TaskClaimed() if holder or completed:
                return f"{_named(task)}: {_kinds(told)}"
            case TaskClaimed():
                holder = attempt
            case TaskCompleted() if completed or not holder:
                return f"{_named(task)}: {_kinds(told)}"
            case TaskCompleted() if attempt != holder:
                return f"{_named(task)} was completed by another attempt than claimed it"
            case TaskCompleted():
                holder, completed = 0, True
            case _:
                holder = 0
    return "" if completed else f"{_named(task)}: {_kinds(told)}"


def _kinds(told: list[Delivery[Event]]) -> str:
    return ", ".join(delivery.type for delivery in told)


def _attempt(entity: Any) -> int:
    attempt: int = entity.attempt
    return attempt


def _named(entity: Entity) -> str:
    ref = getattr(entity, "external_ref", None)
    return f"{entity.noun} {ref or entity.id}"
