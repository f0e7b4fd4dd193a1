"""Several commands in one request, as any NATS client sends them."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from tests.bus.asking import (
    NOTE,
    Asker,
    Got,
    assert_problem,
    count_of,
)

EXECUTE = "db.transactions.execute"

Step = tuple[str, dict[str, Any]]


async def execute(ask: Asker, *steps: Step, **how: Any) -> Got:
    given = [{"subject": subject, "body": body} for subject, body in steps]
    return await ask(EXECUTE, {"operations": given}, **how)


def note(task: object, **more: Any) -> Step:
    return NOTE, {"id": str(task), **more}


def assert_of(got: Got, status: int, kind: str, operation: int, subject: str) -> None:
    assert_problem(got, status, kind, retryable=got.body["retryable"])
    assert (got.body["operation"], got.body["subject"]) == (operation, subject)
    assert "replies" not in got.body


async def kept(db: AsyncConnection) -> list[int]:
    tables = ("bus.outbox", "bus.requests", "planning.projects")
    return [await count_of(db, table) for table in tables]
