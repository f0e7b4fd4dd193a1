"""What a handler does without declaring it fails in tests; in production it counts, and is told."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling.shapes import Handling
from bus.kit import logs
from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps
from tests.bus.asking import NOTE, Asker, add_tasks, column_of
from tests.kit.outbox import Outbox

CLAIM = {"agent_id": "somebody", "limit": 1, "lease_seconds": 60}

# A decider, a handler, a handler of many, and a command whose reaction emits: by what and what.
SHAPES = [
    ("db.tasks.block", {"id": "{task}", "reason": "r"}, "block_task", "task.blocked"),
    ("db.tasks.delete", {"id": "{task}"}, "delete_task", "task.deleted"),
    ("db.tasks.claim", CLAIM, "claim_tasks", "task.claimed"),
    ("db.tasks.claim", CLAIM | {"limit": 2}, "claim_tasks", "task.claimed"),
    ("db.tasks.retry", {"id": "{blocked}"}, "tell_ready_again", "task.ready"),
]
SILENT = {"end_exhaustion", *(by for _, _, by, _ in SHAPES)}
NAMES = ["decider", "handler", "gathered", "gathered-many", "reaction"]


def silenced(registry: Registry) -> Registry:
    """The registry as it would be if these declared no event."""

    def bare(handling: Handling) -> Handling:
        return replace(handling, emits=()) if handling.name in SILENT else handling

    return replace(
        registry,
        operations={
            subject: replace(bound, handling=bare(bound.handling))
            for subject, bound in registry.operations.items()
        },
        reactions={
            event: tuple(map(bare, handlings)) for event, handlings in registry.reactions.items()
        },
        jobs=tuple(replace(job, handling=bare(job.handling)) for job in registry.jobs),
    )


@pytest.fixture(params=[True, False], ids=["strict", "production"])
def strict(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest_asyncio.fixture
async def service(settings: Settings, registry: Registry, strict: bool) -> AsyncIterator[Service]:
    """A service with handlers that do not declare what they emit."""
    chosen = settings.model_copy(update={"strict": strict})
    running = Service(chosen, silenced(registry))
    await running.start()
    try:
        yield running
    finally:
        assert await running.stop()


def test_services_of_tests_are_strict(settings: Settings) -> None:
    assert settings.strict
    assert Settings.model_fields["strict"].default is False


@pytest.mark.parametrize(("subject", "body", "by", "event"), SHAPES, ids=NAMES)
async def test_an_event(
    ask: Asker,
    db: AsyncConnection,
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    strict: bool,
    subject: str,
    body: dict[str, Any],
    by: str,
    event: str,
) -> None:
    task, blocked = await add_tasks(db, 2)
    await db.execute(
        text("UPDATE planning.tasks SET status = 'blocked', blocked_reason = 'r' WHERE id = :id"),
        {"id": blocked},
    )
    await add_tasks(db, status="pending", attempt=0)
    ids = {"task": str(task), "blocked": str(blocked)}
    body = {k: v.format(**ids) if isinstance(v, str) else v for k, v in body.items()}

    with caplog.at_level(logging.ERROR, "fleetbus.bus"):
        got = await ask(subject, body)

    assert f"{by} emits {event}, which it does not declare" in caplog.text
    told = await outbox.types()
    if strict:
        assert (got.status, got.type, told) == (500, "internal_error", [])
        return
    assert got.status == 200
    assert event in told
    [kind] = [kind for kind in logs.counts if f"{by} emits {event}" in kind]
    assert logs.counts[kind] == 1


@pytest.mark.parametrize(
    ("how", "words", "types", "summary"),
    [
        ("same", "returns the entity that it was given", ["task.updated"], None),
        ("another", "says unchanged of another entity", [], "."),
    ],
)
async def test_a_decision_that_says_something_else_than_it_does(
    ask: Asker,
    db: AsyncConnection,
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    strict: bool,
    how: str,
    words: str,
    types: list[str],
    summary: str | None,
) -> None:
    """In production the events are emitted, and what was changed is kept."""
    [task] = await add_tasks(db)

    with caplog.at_level(logging.ERROR, "fleetbus.bus"):
        got = await ask(NOTE, {"id": str(task), "how": how})

    assert f"note_probe {words}" in caplog.text
    told = await outbox.types()
    if strict:
        assert (got.status, got.type, told) == (500, "internal_error", [])
        assert await column_of(db, "summary", task) is None
        return
    assert (got.status, told) == (200, types)
    assert await column_of(db, "summary", task) == got.body["summary"] == summary


async def test_an_event_of_a_job(
    service: Service,
    ask: Asker,
    db: AsyncConnection,
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    strict: bool,
) -> None:
    await db.execute(
        text(
            "INSERT INTO agents.accounts (id, email, provider, is_exhausted, exhausted_until) "
            "VALUES (gen_random_uuid(), 'a@example.org', 'claude', true, '2020-01-01Z')"
        )
    )
    [work] = [t for t in sweeps(service.registry, service.settings) if t.name == "end_exhaustion"]

    with caplog.at_level(logging.ERROR):
        handled = await Sweeper(service.registry, service.database, [])._attempt(work)

    assert "end_exhaustion emits account.available, which it does not declare" in caplog.text
    assert (handled, await outbox.types()) == ((0, []) if strict else (1, ["account.available"]))


@pytest.mark.parametrize("strict", [False], ids=["production"])
async def test_it_is_in_the_log_a_few_times_and_counted_each_time(
    ask: Asker, db: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    many = await add_tasks(db, logs.LINES + 5)

    with caplog.at_level(logging.ERROR, "fleetbus.bus"):
        for task in many:
            assert (await ask("db.tasks.block", {"id": str(task), "reason": "r"})).status == 200

    [kind] = [kind for kind in logs.counts if "task.blocked" in kind]
    assert logs.counts[kind] == len(many)
    assert len([one for one in caplog.records if "task.blocked" in one.getMessage()]) == logs.LINES
