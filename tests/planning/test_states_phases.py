"""Random histories of phases and initiatives: only what the transition tables allow happens."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.entity import Entity
from bus.contract.errors import InvalidTransition
from bus.handling.transitions import Transitions
from bus.kit.ids import uuid7
from contracts.planning.initiatives import (
    ApproveInitiative,
    ArchiveInitiative,
    Initiative,
    InitiativeStatus,
    RequestInitiativeChanges,
    UnarchiveInitiative,
    UpdateInitiative,
)
from contracts.planning.phases import (
    ApprovePhase,
    ApprovePhaseReview,
    BlockPhase,
    CompletePhase,
    CreatePhase,
    Phase,
    PhaseStatus,
    RequestPhaseChanges,
    UnblockPhase,
    UpdatePhase,
)
from handlers.planning import initiatives, phases
from handlers.planning._phase_rules import new_phase
from handlers.planning.states import INITIATIVE, PHASE

START = datetime(2026, 1, 1, tzinfo=UTC)
ID = uuid7()

PHASE_ACTIONS: dict[str, tuple[Any, Any]] = {
    "approve": (phases.approve_phase, ApprovePhase(id=ID)),
    "block": (phases.block_phase, BlockPhase(id=ID, reason="why")),
    "unblock": (phases.unblock_phase, UnblockPhase(id=ID)),
    "complete": (phases.complete_phase, CompletePhase(id=ID)),
    "approve_review": (phases.approve_phase_review, ApprovePhaseReview(id=ID)),
    "request_changes": (phases.request_phase_changes, RequestPhaseChanges(id=ID, summary="s")),
}
INITIATIVE_ACTIONS: dict[str, tuple[Any, Any]] = {
    "approve": (
        initiatives.approve_initiative,
        ApproveInitiative(id=ID, strategy="push_branch"),
    ),
    "request_changes": (
        initiatives.request_initiative_changes,
        RequestInitiativeChanges(id=ID, summary="s"),
    ),
    "archive": (initiatives.archive_initiative, ArchiveInitiative(id=ID)),
    "unarchive": (initiatives.unarchive_initiative, UnarchiveInitiative(id=ID)),
}
ELSEWHERE = {"start", "finish", "take_up", "finalize"}
"""Actions of handlers and reactions: they look at more than the entity."""


def phase(status: PhaseStatus) -> Phase:
    made = new_phase(CreatePhase(initiative_id=ID, name="x"), id_=ID, position=1, now=START)
    reason = "why" if status == "blocked" else None
    return made.model_copy(update={"status": status, "blocked_reason": reason})


def initiative(status: InitiativeStatus) -> Initiative:
    return Initiative(
        id=ID,
        version=1,
        created_at=START,
        updated_at=START,
        name="x",
        status=status,
        status_before=None,
        branch=None,
        execution_mode="yolo",
        external_ref=None,
    )


def walk(
    table: Transitions, actions: dict[str, tuple[Any, Any]], entity: Any, history: list[str]
) -> list[Any]:
    """Every state along a history, each step checked against the table."""
    edges = set(table.edges())
    states = [entity]
    for step, action in enumerate(history, start=1):
        decide, command = actions[action]
        before, now = states[-1], START + timedelta(seconds=step)
        if before.status not in table.actions[action]:
            with pytest.raises(InvalidTransition, match=f"is {before.status}, not "):
                decide(command, before, now=now)
            continue
        decision = decide(command, before, now=now)
        after = decision.entity
        assert (before.status, action, after.status) in edges
        assert (after.version, after.updated_at) == (before.version + 1, now)
        (event,) = decision.events
        assert getattr(event, table.noun) == after
        assert event.previous_status == before.status
        type(after).model_validate(after.model_dump())
        states.append(after)
    return states


@given(
    st.sampled_from(get_args(PhaseStatus)),
    st.lists(st.sampled_from(sorted(PHASE_ACTIONS)), max_size=30),
)
def test_phases_keep_to_their_table(status: PhaseStatus, history: list[str]) -> None:
    for state in walk(PHASE, PHASE_ACTIONS, phase(status), history):
        assert (state.blocked_reason is not None) == (state.status == "blocked")
        assert state.status_before is None or state.status == "blocked"


@given(
    st.sampled_from(get_args(InitiativeStatus)),
    st.lists(st.sampled_from(sorted(INITIATIVE_ACTIONS)), max_size=30),
)
def test_initiatives_keep_to_their_table(status: InitiativeStatus, history: list[str]) -> None:
    for state in walk(INITIATIVE, INITIATIVE_ACTIONS, initiative(status), history):
        assert state.status_before is None or state.status == "archived"


@pytest.mark.parametrize("status", ["pending", "approved", "in_progress", "pending_review"])
def test_a_phase_returns_to_where_it_was_blocked(status: PhaseStatus) -> None:
    before, *_, back = walk(PHASE, PHASE_ACTIONS, phase(status), ["block", "unblock"])
    assert back == before.model_copy(update={"version": 3, "updated_at": back.updated_at})


@pytest.mark.parametrize("status", ["active", "pending_review", "completed"])
def test_an_initiative_returns_to_where_it_was_archived(status: InitiativeStatus) -> None:
    history = ["archive", "unarchive"]
    before, *_, back = walk(INITIATIVE, INITIATIVE_ACTIONS, initiative(status), history)
    assert back == before.model_copy(update={"version": 3, "updated_at": back.updated_at})


def test_every_action_is_tried() -> None:
    assert PHASE_ACTIONS.keys() | ELSEWHERE == PHASE.actions.keys()
    assert INITIATIVE_ACTIONS.keys() | {"finish", "take_up"} == INITIATIVE.actions.keys()


@pytest.mark.parametrize(
    ("table", "statuses"),
    [(PHASE, get_args(PhaseStatus)), (INITIATIVE, get_args(InitiativeStatus))],
)
def test_tables_name_every_status_and_no_other(
    table: Transitions, statuses: tuple[str, ...]
) -> None:
    named = {status for before, _, after in table.edges() for status in (before, after)}
    assert named == set(statuses)
    assert set(table.initial) <= set(statuses)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["x", "y"]),
            "merge_base": st.sampled_from([None, "5f2c1e9"]),
            "content": st.sampled_from([None, {"a": 1}, {"a": True}]),
            "position": st.integers(-2, 2),
        },
    )
)
def test_an_update_changes_what_it_names(fields: dict[str, Any]) -> None:
    before = phase("pending")
    decision = phases.update_phase(UpdatePhase(id=ID, **fields), before, now=START)
    check_update(before, decision, fields)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["x", "y"]),
            "branch": st.sampled_from([None, "feature"]),
            "execution_mode": st.sampled_from(["yolo", "review_per_phase"]),
        },
    )
)
def test_an_update_of_an_initiative_changes_what_it_names(fields: dict[str, Any]) -> None:
    before = initiative("active")
    decision = initiatives.update_initiative(UpdateInitiative(id=ID, **fields), before, now=START)
    check_update(before, decision, fields)


def check_update(before: Entity, decision: Any, fields: dict[str, Any]) -> None:
    changed = any(getattr(before, name) != value for name, value in fields.items())
    assert (decision.entity is not before) == changed == bool(decision.events)
    expected = fields | {"version": 2} if changed else {}
    assert decision.entity == before.model_copy(update=expected)
