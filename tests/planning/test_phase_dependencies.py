import asyncio
from typing import Any

import pytest

from bus.contract.errors import (
    AlreadyExists,
)
from contracts.planning.phases import (
    CompletePhase,
    ListDispatchablePhases,
    ListPhaseDependencies,
    ListPhaseDependents,
    RemovePhaseDependency,
    StartPhase,
)
from contracts.planning.tasks import DependencyCycle, DependencyNotFound, DifferentInitiatives
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import a_lone_phase, depend_on_phase, two_phases


class TestAddPhaseDependency:
    async def test_added(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus)
        dependent = await depend_on_phase(bus, two, one)
        assert (dependent.id, dependent.version) == (two.id, 2)
        assert (await outbox.types())[-1] == "phase.updated"

    async def test_on_itself(self, bus: Bus) -> None:
        one = await a_lone_phase(bus)
        with pytest.raises(DependencyCycle) as refused:
            await depend_on_phase(bus, one, one)
        assert (refused.value.entity, refused.value.path) == ("phase", [one.id, one.id])

    async def test_cycle_with_its_path(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus)
        three = await arrange.a_phase(bus, one.initiative_id, "three")
        await depend_on_phase(bus, two, one)
        await depend_on_phase(bus, three, two)
        before = await outbox.types()
        with pytest.raises(DependencyCycle) as refused:
            await depend_on_phase(bus, one, three)
        assert refused.value.path == [one.id, three.id, two.id, one.id]
        assert await outbox.types() == before

    async def test_both_halves_of_a_cycle_at_once(self, bus: Bus) -> None:
        for _ in range(5):
            one, two = await two_phases(bus)
            replies = await asyncio.gather(
                depend_on_phase(bus, one, two),
                depend_on_phase(bus, two, one),
                return_exceptions=True,
            )
            assert sorted(type(each).__name__ for each in replies) == ["DependencyCycle", "Phase"]

    async def test_twice(self, bus: Bus) -> None:
        one, two = await two_phases(bus)
        await depend_on_phase(bus, two, one)
        with pytest.raises(AlreadyExists) as refused:
            await depend_on_phase(bus, two, one)
        assert refused.value.entity == "phase_dependency"

    async def test_of_another_initiative(self, bus: Bus) -> None:
        one, other = await a_lone_phase(bus), await a_lone_phase(bus)
        with pytest.raises(DifferentInitiatives) as refused:
            await depend_on_phase(bus, one, other)
        assert (refused.value.id, refused.value.other_id) == (one.id, other.id)


class TestRemovePhaseDependency:
    async def test_removed(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await two_phases(bus)
        await depend_on_phase(bus, two, one)
        free = await bus.call(RemovePhaseDependency(id=two.id, depends_on_phase_id=one.id))
        assert free.version == 3
        assert (await bus.call(ListPhaseDependencies(id=two.id))).items == []
        assert (await outbox.types())[-2:] == ["phase.updated", "phase.updated"]

    async def test_no_dependency(self, bus: Bus) -> None:
        one, two = await two_phases(bus)
        with pytest.raises(DependencyNotFound) as refused:
            await bus.call(RemovePhaseDependency(id=two.id, depends_on_phase_id=one.id))
        assert (refused.value.id, refused.value.depends_on) == (two.id, one.id)


class TestListPhaseDependencies:
    async def test_in_one_statement(self, bus: Bus, statements: Any) -> None:
        one, two = await two_phases(bus)
        await depend_on_phase(bus, two, one)
        with statements() as counted:
            page = await bus.call(ListPhaseDependencies(id=two.id))
        assert (page.items, counted.total) == ([one], 1)

    async def test_none(self, bus: Bus) -> None:
        assert (await bus.call(ListPhaseDependencies(id=(await a_lone_phase(bus)).id))).items == []


class TestListPhaseDependents:
    async def test_in_one_statement(self, bus: Bus, statements: Any) -> None:
        one, two = await two_phases(bus)
        two = await depend_on_phase(bus, two, one)
        with statements() as counted:
            page = await bus.call(ListPhaseDependents(id=one.id))
        assert (page.items, counted.total) == ([two], 1)


class TestListDispatchablePhases:
    async def test_approved_with_nothing_left_to_wait_for(self, bus: Bus, statements: Any) -> None:
        one, two = await two_phases(bus, status="approved")
        await arrange.a_phase(bus, one.initiative_id, "pending")
        await a_lone_phase(bus, status="approved")
        two = await depend_on_phase(bus, two, one)
        query = ListDispatchablePhases(initiative_id=one.initiative_id)
        with statements() as counted:
            assert (await bus.call(query)).items == [one]
        assert counted.total == 1
        await bus.call(StartPhase(id=one.id))
        assert (await bus.call(query)).items == []
        await bus.call(CompletePhase(id=one.id))
        assert (await bus.call(query)).items == [two]
