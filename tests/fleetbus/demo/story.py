"""Histories written by hand, good ones and bad ones."""

from datetime import UTC, datetime
from typing import Any

from bus.contract.entity import Entity
from bus.contract.event import Event
from bus.kit.ids import uuid7
from contracts.agents.agents import Agent, AgentCrashed, AgentRegistered, AgentStopped, LostTask
from contracts.planning.phases import Phase, PhaseCompleted, PhaseCreated
from contracts.planning.tasks import (
    Task,
    TaskClaimed,
    TaskCompleted,
    TaskContents,
    TaskCreated,
    TaskDeleted,
    TaskReady,
    TaskRetried,
)
from fleetbus.client.events import Delivery
from fleetbus.demo.verify import Check, verify

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def blank(kind: type[Any], **fields: Any) -> Any:
    """An entity of a kind with nothing said but this."""
    base = {"id": uuid7(), "version": 1, "created_at": NOW, "updated_at": NOW}
    empty = dict.fromkeys(kind.model_fields)
    return kind.model_construct(**(empty | base | fields))


def new_task(ref: str, **fields: Any) -> Task:
    fields = {"status": "pending", "attempt": 0, "late_results": []} | fields
    task: Task = blank(Task, name=ref, external_ref=ref, **fields)
    return task


class Story:
    """A history as it grows, and the tables as they would be."""

    def __init__(self) -> None:
        self.history: list[Delivery[Event]] = []
        self.entities: dict[str, Any] = {}

    def create(self, *refs: str, **fields: Any) -> None:
        for ref in refs:
            self.tell(TaskCreated.model_construct(task=new_task(ref, **fields), depends_on=[]))

    def ready(self, ref: str) -> None:
        self.tell(TaskReady.model_construct(task=self.entities[ref]))

    def claim(self, ref: str, by: str = "w") -> None:
        task = self.entities[ref]
        agent = str(self.entities[by].id) if by in self.entities else by
        task = task.evolve(NOW, status="in_progress", attempt=task.attempt + 1, claimed_by=agent)
        self.tell(TaskClaimed.model_construct(task=task))

    def complete(self, ref: str, **fields: Any) -> None:
        task = self.entities[ref].evolve(NOW, status="completed", **fields)
        self.tell(TaskCompleted.model_construct(task=task, previous_status="in_progress"))

    def do(self, *refs: str) -> None:
        for ref in refs:
            self.claim(ref)
            self.complete(ref)

    def delete(self, ref: str) -> None:
        gone = TaskContents(children=0, dependencies=0)
        self.tell(TaskDeleted.model_construct(task=self.entities[ref].evolve(NOW), deleted=gone))

    def open_phase(self, ref: str, status: str = "in_progress") -> Phase:
        phase: Phase = blank(Phase, name=ref, external_ref=ref, status=status)
        self.tell(PhaseCreated.model_construct(phase=phase))
        return phase

    def complete_phase(self, ref: str) -> None:
        phase = self.entities[ref].evolve(NOW, status="completed")
        self.tell(PhaseCompleted.model_construct(phase=phase, previous_status="in_progress"))

    def register(self, *names: str) -> None:
        for name in names:
            agent = blank(Agent, name=name, status="idle", incarnation=1)
            self.tell(AgentRegistered.model_construct(agent=agent))

    def crash(self, name: str, *refs: str, **fields: Any) -> None:
        agent = self.entities[name].evolve(NOW, status="crashed", **fields)
        lost = [self._lost(ref) for ref in refs]
        told = {"cause": "reported", "reason": "-", "exit_code": None, "progress": None}
        self.tell(AgentCrashed.model_construct(**{"agent": agent, "tasks": lost, **told}))

    def _lost(self, ref: str) -> LostTask:
        task = self.entities[ref]
        return LostTask(id=task.id, attempt=task.attempt, outcome="retried", retry_count=1)

    def stop(self, *names: str) -> None:
        for name in names:
            agent = self.entities[name].evolve(NOW, status="stopped")
            self.tell(AgentStopped.model_construct(agent=agent, reason="user_requested"))

    def retry(self, ref: str) -> None:
        task = self.entities[ref].evolve(NOW, status="pending", claimed_by=None)
        self.tell(TaskRetried.model_construct(task=task))

    def tell(self, event: Event) -> None:
        entity: Any = getattr(event, event.fact.entity)
        self.entities[getattr(entity, "external_ref", None) or entity.name] = entity
        self.history.append(
            Delivery(
                event=event,
                id=str(uuid7()),
                type=event.fact.type,
                entity_id=str(entity.id),
                time=NOW,
                position=len(self.history) + 1,
                cause=None,
            )
        )

    @property
    def stored(self) -> list[Entity]:
        return list(self.entities.values())

    def check(self, *edges: tuple[str, str]) -> list[Check]:
        return verify(self.history, self.stored, edges)

    def broken(self, *edges: tuple[str, str]) -> dict[str, tuple[str, ...]]:
        """The promises that were not kept, with the violations."""
        return {c.promise: c.violations for c in self.check(*edges) if not c.kept}
