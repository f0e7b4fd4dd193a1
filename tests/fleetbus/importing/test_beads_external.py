"""What waits in Beads for a capability of another project is blocked until a person decides."""

import json

import pytest

from contracts.planning.tasks import ClaimTasks
from fleetbus.client import Bus
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from tests.fleetbus.importing.test_beads import issue, read
from tests.fleetbus.importing.test_beads_order import pairs, state


class TestCapabilitiesOfOtherProjects:
    REF = "external:api:login"

    @pytest.mark.parametrize("kind", ["blocks", "conditional-blocks", "waits-for"])
    @pytest.mark.parametrize("ref", [REF, "External:api:login", "external:api", "external::"])
    def test_hold_work_back(self, kind: str, ref: str) -> None:
        edges = [{"issue_id": "a", "depends_on_id": ref, "type": kind}]
        plan = read({"id": "a", "title": "A", "dependencies": edges}, issue("b", "a"))
        assert state(plan, "a") == ("blocked", f"Waits in Beads for {ref}")
        assert pairs(plan) == {("b", "a")}
        [edge] = plan.left_out
        assert (edge.outcome, edge.depends_on) == ("external", ref)

    def test_what_is_closed_waits_for_none(self) -> None:
        edges = [{"depends_on_id": self.REF}]
        plan = read({"id": "a", "title": "A", "status": "closed", "dependencies": edges})
        assert state(plan, "a") == ("completed", None)

    def test_a_phase_is_held_back_with_its_tasks(self) -> None:
        edges = [{"depends_on_id": self.REF}]
        plan = read(
            {"id": "a", "title": "A", "issue_type": "epic", "dependencies": edges}, issue("a.1")
        )
        [phase] = plan.phases
        assert (phase.status, phase.blocked_reason) == ("blocked", f"Waits in Beads for {self.REF}")

    def test_one_that_only_relates_holds_nothing_back(self) -> None:
        edges = [{"depends_on_id": self.REF, "type": "related"}]
        plan = read({"id": "a", "title": "A", "dependencies": edges})
        assert state(plan, "a") == ("pending", None)

    async def test_it_is_not_handed_out(self, bus: Bus) -> None:
        edges = [{"depends_on_id": self.REF}]
        records = [{"id": "a", "title": "A", "dependencies": edges}, issue("b")]
        await load_plan(bus, read_beads(map(json.dumps, records)))
        claimed = (await bus.call(ClaimTasks(agent_id="agent", limit=9))).tasks
        assert [claim.task.external_ref for claim in claimed] == ["b"]
