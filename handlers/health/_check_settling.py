"""Counting workers in their checks: many reports, one lock of each check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out
from bus.storage import entities as _entities
from contracts.health.checks import Check, WorkerCheck
from handlers.health._check_rules import close, count, nobody_left, tally
from persistence.health import checks


async def settle(
    workers: Iterable[WorkerCheck], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Count these workers, and close the checks that wait for nobody else.

    A check is locked after its workers, by everyone: of two transactions with its last reports
    the later one sees what the earlier one counted.
    """
    by_check: dict[UUID, list[WorkerCheck]] = defaultdict(list)
    for worker in workers:
        by_check[worker.check_id].append(worker)

    locked = await _entities.lock(db, Check, by_check)
    counted = [count(check, tally(by_check[id_]), now) for id_, check in locked.items()]
    over = [check.id for check in counted if nobody_left(check)]
    scores = await checks.mean_scores(db, over) if over else {}

    decisions = [
        close(check, scores[check.id], now) if check.id in scores else Decision(check)
        for check in counted
    ]
    await carry_out(decisions, db=db, emit=emit)
