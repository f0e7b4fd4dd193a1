"""Tasks and all that is below them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import compiled, fetch
from persistence.planning.tables import task

_IDS = bindparam("ids", type_=ARRAY(Uuid))
_child = task.alias("child")
_below = select(task.c.id).where(task.c.id == func.any(_IDS)).cte("below", recursive=True)
_below = _below.union(select(_child.c.id).where(_child.c.parent_task_id == _below.c.id))
_TREES = compiled(select(_below.c.id))
_LOCK_FOR_DELETION = compiled(
    select(task.c.id).where(task.c.id == func.any(_IDS)).order_by(task.c.id).with_for_update()
)


async def lock_trees(db: AsyncConnection, ids: Iterable[UUID]) -> set[UUID]:
    """These tasks and everything below them, locked for deletion: nothing more comes below them,
    and nothing new depends on them.
    """
    found = set(ids)
    locked: set[UUID] = set()
    while found - locked:
        values = {"ids": list(found - locked)}
        locked |= {row["id"] for row in await fetch(db, _LOCK_FOR_DELETION, values)}
        found = {row["id"] for row in await fetch(db, _TREES, {"ids": list(locked)})}
    return locked
