"""What the system already has of a plan, read over the bus."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bus.contract.entity import Entity
from bus.contract.errors import ReplyTooLarge
from bus.contract.page import ListOf
from contracts.planning.initiatives import FindInitiative, Initiative, InitiativeNotFound
from contracts.planning.phases import ListPhaseDependencies, ListPhases, Phase
from contracts.planning.tasks import ListTaskDependencies, ListTasks, Task
from fleetbus.client import Client
from fleetbus.importing.plan import Dependency, EarlierImport

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

AT_ONCE = 32
"""Requests in flight; more only wait for one another in the service."""

PAGE = 500


@dataclass(frozen=True, slots=True)
class Present:
    """The initiative of a plan with everything in it that came from a plan, by external ref."""

    initiative: Initiative | None = None
    phases: Mapping[str, Phase] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    dependencies: frozenset[Dependency] = frozenset()
    phase_dependencies: frozenset[Dependency] = frozenset()

    @property
    def kept(self) -> EarlierImport:
        """What is there as one kind only, and so stays of that kind."""
        phases, tasks = self.phases.keys(), self.tasks.keys()
        return EarlierImport(frozenset(phases - tasks), frozenset(tasks - phases))


async def read_present(bus: Client, external_ref: str) -> Present:
    """Read the initiative that a plan was imported into; empty if there is none."""
    try:
        initiative = await bus.call(FindInitiative(external_ref=external_ref))
    except InitiativeNotFound:
        return Present()
    phases = _by_ref(await all_of(bus, ListPhases(initiative_id=initiative.id)))
    tasks = _by_ref(await all_of(bus, ListTasks(initiative_id=initiative.id)))
    return Present(
        initiative=initiative,
        phases=phases,
        tasks=tasks,
        dependencies=await _dependencies(bus, tasks, lambda task: ListTaskDependencies(id=task.id)),
        phase_dependencies=await _dependencies(
            bus, phases, lambda phase: ListPhaseDependencies(id=phase.id)
        ),
    )


async def all_of(bus: Client, query: ListOf[T]) -> list[T]:
    """Everything on all pages of a list."""
    items: list[T] = []
    limit, cursor = PAGE, None
    while True:
        try:
            page = await bus.call(query.model_copy(update={"limit": limit, "cursor": cursor}))
        except ReplyTooLarge:
            if limit == 1:
                raise
            limit = max(1, limit // 4)
            continue
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for each item, several at once; the first failure ends it all."""
    remaining = iter(items)

    async def take() -> None:
        for item in remaining:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(take())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _by_ref(entities: Iterable[Any]) -> dict[str, Any]:
    return {entity.external_ref: entity for entity in entities if entity.external_ref is not None}


async def _dependencies(
    bus: Client, entities: Mapping[str, E], query: Callable[[E], ListOf[Any]]
) -> frozenset[Dependency]:
    found: set[Dependency] = set()

    async def read(ref: str) -> None:
        for other in await all_of(bus, query(entities[ref])):
            if other.external_ref in entities:
                found.add(Dependency(ref, other.external_ref))

    await for_each(entities, read)
    return frozenset(found)
