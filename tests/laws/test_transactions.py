"""Laws of what stands in a transaction with others: which commands do, and what they name."""

import pytest

from bus.contract.refusals import Conflict, DeclarationError
from bus.running.registry import Bound, Registry

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
    assert secret
    assert apart == vital | secret | {"db.transactions.execute"}


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
