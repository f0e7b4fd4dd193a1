"""Random creations and deletions: whatever changes or goes was told by the command that did it."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.errors import InvalidReference
from bus.contract.operation import Command
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from bus.running.discovery import metadata
from bus.storage.tables import ENDS_WITH, TABLES, holds_a_field
from contracts.agents import accounts, agents
from contracts.health import model_calls, test_definitions, test_runs
from contracts.planning import initiatives, phases, projects, tasks
from fleetbus.client import Bus

STEPS = 50

WATCHED: dict[str, type[Entity]] = {
    entity.noun: entity
    for entity in (
        *(projects.Project, initiatives.Initiative, phases.Phase, tasks.Task),
        *(accounts.Account, agents.Agent),
        *(test_definitions.TestDefinition, test_runs.TestRun, model_calls.ModelCall),
    )
}
BORN_UNTOLD = {"model_call"}
"""What is recorded without an event; what becomes of it later is told."""

metadata("persistence")
ROWS = " UNION ALL ".join(
    f"SELECT '{noun}' AS noun, id::text AS id, to_jsonb(t) AS row FROM {TABLES[entity].fullname} t"
    for noun, entity in WATCHED.items()
)
TOLD = "SELECT type, entity_id, data FROM bus.outbox WHERE position > :after ORDER BY position"

GONE_IDS = ("phase_ids", "task_ids", "child_ids", "run_ids")
"""Where a deletion names what went along."""

Key = tuple[str, str]
Rows = dict[Key, dict[str, Any]]


def references(noun: str) -> Iterator[tuple[str, str, bool]]:
    """(column, noun of the target, whether the row ends with it) of each foreign key."""
    table = TABLES[WATCHED[noun]]
    nouns = {TABLES[entity].fullname: noun for noun, entity in WATCHED.items()}
    owners = {owner.noun for owner in ENDS_WITH.get(table.fullname, ())}
    for key in table.foreign_keys:
        target = nouns[key.column.table.fullname]
        yield key.parent.name, target, target in owners


def ending(rows: Rows, gone: Key) -> set[Key]:
    """What ends with the end of one entity, by the declarations of the tables alone."""
    found, more = {gone}, True
    while more:
        more = False
        for key, row in rows.items():
            owned = [(target, row[column]) for column, target, ends in references(key[0]) if ends]
            if key not in found and found & set(owned):
                found.add(key)
                more = True
    return found


@dataclass
class World:
    """What there is, by looking into the tables, and what is done to it."""

    bus: Bus
    db: AsyncConnection
    chance: random.Random
    rows: Rows = field(default_factory=dict)
    position: int = 0
    deletions: int = 0

    async def look(self) -> tuple[Rows, list[Any]]:
        rows: Rows = {}
        for noun, id_, row in await self.db.execute(text(ROWS)):
            held = [c.name for c in TABLES[WATCHED[noun]].columns if holds_a_field(c)]
            rows[noun, id_] = {name: row[name] for name in held}
        told = list((await self.db.execute(text(TOLD), {"after": self.position})).all())
        [[self.position]] = await self.db.execute(
            text("SELECT coalesce(max(position), 0) FROM bus.outbox")
        )
        return rows, told

    def any(self, noun: str, *, missing: float = 0.0) -> Any:
        """An entity of a kind or none; or, now and then, one that is not there."""
        if self.chance.random() < missing:
            return uuid7()
        ids = sorted(id_ for kind, id_ in self.rows if kind == noun)
        return self._id(noun, self.chance.choice(ids)) if ids else None

    def maybe(self, noun: str) -> Any:
        return self.any(noun, missing=0.1) if self.chance.random() < 0.7 else None

    def _id(self, noun: str, id_: str) -> Any:
        return id_ if noun == "test_definition" else UUID(id_)

    def creation(self) -> Command[Any] | None:
        name = uuid7().hex
        match self.chance.choice([*WATCHED, "task", "task", "agent", "edge", "phase_edge"]):
            case "project":
                return projects.CreateProject(name=name, url=f"https://example.com/{name}.git")
            case "initiative":
                about = [one for one in [self.any("project")] if one]
                return initiatives.CreateInitiative(name=name, project_ids=about)
            case "phase" if initiative := self.any("initiative", missing=0.1):
                return phases.CreatePhase(initiative_id=initiative, name=name)
            case "task":
                parent = self.maybe("task")
                where = {} if parent else {"phase_id": self.maybe("phase")}
                return tasks.CreateTask(name=name, parent_task_id=parent, **where)
            case "edge" if (one := self.any("task")) and (other := self.any("task")):
                return tasks.AddTaskDependency(id=one, depends_on_task_id=other)
            case "phase_edge" if (one := self.any("phase")) and (other := self.any("phase")):
                return phases.AddPhaseDependency(id=one, depends_on_phase_id=other)
            case "account":
                return accounts.CreateAccount(email=f"{name}@example.com")
            case "agent":
                nouns = {f"{noun}_id": noun for noun in ("task", "initiative", "account")}
                return agents.RegisterAgent(**{at: self.maybe(to) for at, to in nouns.items()})
            case "test_definition":
                return test_definitions.UpsertTestDefinition(id=name, description="It answers")
            case "test_run" if of := self.any("test_definition"):
                return test_runs.StartTestRun(test_definition_id=of)
            case "model_call":
                run = self.maybe("test_run")
                given: Any = {"model": "m", "provider": "p", "success": True}
                return model_calls.RecordModelCall(test_run_id=run, **given)
        return None

    def deletion(self) -> tuple[Command[Any], Key] | None:
        deletions: dict[str, Any] = {
            "project": projects.DeleteProject,
            "initiative": initiatives.DeleteInitiative,
            "phase": phases.DeletePhase,
            "task": tasks.DeleteTask,
            "account": accounts.DeleteAccount,
            "agent": agents.DeleteAgent,
            "test_definition": test_definitions.DeleteTestDefinition,
        }
        noun = self.chance.choice(list(deletions))
        id_ = self.any(noun)
        return (deletions[noun](id=id_), (noun, str(id_))) if id_ else None

    async def step(self) -> None:
        deleting = self.deletion() if self.chance.random() < 0.3 else None
        command = deleting[0] if deleting else self.creation()
        if command is None:
            return
        if isinstance(command, agents.DeleteAgent):
            await self.do(agents.StopAgent(id=command.id, reason="user_requested"), None)
        await self.do(command, deleting[1] if deleting else None)

    async def do(self, command: Command[Any], gone: Key | None) -> None:
        refused = None
        try:
            await self.bus.call(command)
        except Refusal as refusal:
            refused = refusal
        assert refused is None or refused.status < 500
        assert not (gone and isinstance(refused, InvalidReference))
        before, (after, told) = self.rows, await self.look()
        self.rows = after
        ended = ending(before, gone) if gone and not refused else set()
        self.deletions += bool(ended)
        assert before.keys() - after.keys() == ended
        if refused:
            assert (after, told) == (before, [])
        if gone and ended:
            [event] = [e for e in told if (e.type, e.entity_id) == (f"{gone[0]}.deleted", gone[1])]
            named = [id_ for field in GONE_IDS for id_ in event.data.get(field, [])]
            assert sorted(named) == sorted(id_ for _, id_ in ended - {gone})
        for key, row in after.items():
            versions = [e.data[key[0]]["version"] for e in told if _about(e) == key]
            first = before[key]["version"] + 1 if key in before else 1
            told_from = first + 1 if key not in before and key[0] in BORN_UNTOLD else first
            assert versions == list(range(told_from, row["version"] + 1)), (command, key)
            if key in before and not versions:
                assert row == before[key]
            for column, target, _ in references(key[0]):
                assert row[column] is None or (target, str(row[column])) in after


def _about(event: Any) -> Key:
    return event.type.partition(".")[0], event.entity_id


async def test_what_changes_or_goes_is_told(bus: Bus, db: AsyncConnection) -> None:
    loop = asyncio.get_running_loop()
    worlds: list[World] = []

    async def live(seed: int) -> None:
        world = World(bus, db, random.Random(seed))
        worlds.append(world)
        world.rows, _ = await world.look()
        for _ in range(STEPS):
            await world.step()

    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 1_000_000))
    def check(seed: int) -> None:
        asyncio.run_coroutine_threadsafe(live(seed), loop).result(60)

    await asyncio.to_thread(check)
    assert sum(world.deletions for world in worlds) > STEPS // 4
