"""Laws of what stands in a transaction with others: which commands do, and what they name."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from bus.contract.errors import DryRunRefused
from bus.contract.refusals import Conflict, DeclarationError
from bus.running.registry import Bound, Registry
from tests.laws.declaring import CONTRACT, HANDLER, execute, forgotten

NAMED_OTHERWISE = {
    "db.daily_summaries.compute": "day",
    "db.daily_summaries.upsert": "day",
    "db.schedules.upsert": "name",
    "db.log_chunks.append_many": "items",
    "db.tasks.create_many": "items",
    "db.test_runs.record_many": "items",
}
"""Commands whose rows a caller knows by something else than the ``id`` of the request."""


def commands(registry: Registry) -> dict[str, Bound]:
    return {
        subject: bound
        for subject, bound in registry.operations.items()
        if bound.declared.kind == "command"
    }


def test_all_commands_do_but_the_vital_ones_and_itself(registry: Registry) -> None:
    apart = {s for s, bound in commands(registry).items() if not bound.declared.transactional}
    vital = {s for s, bound in commands(registry).items() if bound.declared.vital}

    secret = {s for s, bound in commands(registry).items() if bound.declared.secret}
    judging = {s for s, bound in commands(registry).items() if bound.declared.judges}
    assert secret
    assert apart == vital | secret | judging | {"db.transactions.execute"}


class TestJudging:
    """What judges a guess is a command, that counts it whatever else there is."""

    @pytest.fixture(autouse=True)
    def _forgotten(self) -> Iterator[None]:
        with forgotten():
            yield

    WAVE = 'class WaveTask({}[Task], subject="db.tasks.wave", judges=True):\n    """Wave."""'

    def test_it_says_that_it_is_no_dry_run_and_stands_with_no_other(self) -> None:
        declared = execute(self.WAVE.format("Command"), CONTRACT)["WaveTask"].declared
        assert declared.errors == (DryRunRefused,)
        assert (declared.judges, declared.transactional) == (True, False)

    @pytest.mark.parametrize(
        ("returns", "fits"), [("Task", False), ("Task | Kept", True), ("Kept | Task", True)]
    )
    def test_who_judges_can_count(self, returns: str, fits: bool) -> None:
        wave = execute(self.WAVE.format("Command"), CONTRACT)["WaveTask"]
        source = f"@handler\nasync def wave_task(command: WaveTask) -> {returns}: ..."
        expected = (
            nullcontext() if fits else pytest.raises(DeclarationError, match=r"say Task \| Kept")
        )
        with expected:
            execute(source, HANDLER, WaveTask=wave)

    def test_no_query_judges(self) -> None:
        with pytest.raises(DeclarationError, match="is a query and cannot count what it judges"):
            execute(self.WAVE.format("Query"), CONTRACT)


def test_no_query_does(registry: Registry) -> None:
    queries = [b for b in registry.operations.values() if b.declared.kind == "query"]

    assert not any(bound.declared.transactional for bound in queries)


def test_what_is_created_can_be_named_before_it_is_there(registry: Registry) -> None:
    makes = {s: b for s, b in commands(registry).items() if "new_id" in b.handling.dependencies}
    optional = {
        subject
        for subject, bound in makes.items()
        if (field := bound.operation.model_fields.get("id")) and not field.is_required()
    }

    assert optional | NAMED_OTHERWISE.keys() == makes.keys()
    for subject, name in NAMED_OTHERWISE.items():
        assert name in makes[subject].operation.model_fields, subject


def test_no_error_says_operation_or_subject_itself(registry: Registry) -> None:
    for bound in commands(registry).values():
        for error in bound.may_raise:
            assert not {"operation", "subject"} & error.details.keys(), error

    with pytest.raises(DeclarationError, match="may not redefine operation"):
        type("Busy", (Conflict,), {"__doc__": "Busy.", "__annotations__": {"operation": int}})
