"""Advisory locks: what no row stands for is locked by a name.

All of them are of one key space. Each is declared once, with what it is for, beside the statements
that it protects or, those of the kernel and of the program, at the end of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.refusals import DeclarationError

LOCKS: dict[str, AdvisoryLock] = {}
"""Every lock by its name."""

_KEY = "coalesce(CAST(:key AS bigint), hashtextextended(CAST(:name AS text), 0))"

# The subquery is over, and the lock held, before the clock is read.
_HOLD = text(f"""
    SELECT clock_timestamp() FROM (SELECT pg_advisory_xact_lock({_KEY}) OFFSET 0) AS held
""")
_TRY_TO_HOLD = text(f"SELECT pg_try_advisory_xact_lock({_KEY})")
_TRY_TO_OWN = text(f"SELECT pg_try_advisory_lock({_KEY})")
_IS_HELD = text(f"""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (CAST(classid AS bigint) << 32) + CAST(objid AS bigint) = {_KEY}
    )
""")


@dataclass(frozen=True)
class AdvisoryLock:
    """A lock by name. ``of`` tells apart what it is taken of, where there is more than one."""

    name: str
    """What it is found by; nobody holds two of one name and one ``of``."""
    about: str
    """What is done by one at a time, as a sentence."""
    key: int | None = None
    """Its key, where others know it by that; else the hash of its name."""

    def __post_init__(self) -> None:
        if self.name in LOCKS:
            raise DeclarationError(f"there is an advisory lock {self.name!r} already")
        LOCKS[self.name] = self

    async def hold(self, db: AsyncConnection, of: object = "") -> datetime:
        """Wait for it, and hold it until the transaction ends; the time since which that is so."""
        since: datetime = await self._ask(db, _HOLD, of)
        return since

    async def try_to_hold(self, db: AsyncConnection, of: object = "") -> bool:
        """Hold it until the transaction ends, unless somebody else does."""
        return bool(await self._ask(db, _TRY_TO_HOLD, of))

    async def try_to_own(self, db: AsyncConnection, of: object = "") -> bool:
        """Hold it for as long as this session lives, unless somebody else does.

        None waits for a session's lock: one that waits inside a statement keeps a snapshot, and so
        keeps VACUUM from cleaning anything for as long as another holds it.
        """
        return bool(await self._ask(db, _TRY_TO_OWN, of))

    async def is_held(self, db: AsyncConnection, of: object = "") -> bool:
        """Whether anybody holds it now."""
        return bool(await self._ask(db, _IS_HELD, of))

    async def _ask(self, db: AsyncConnection, statement: TextClause, of: object) -> Any:
        values = {"key": self.key, "name": f"{self.name}:{of}"}
        return await db.scalar(statement, values)


RELAY = AdvisoryLock(
    "relay", "One relay is the active one; the others stand by.", key=0x666C_7472_656C_6179
)
MIGRATION = AdvisoryLock(
    "migration", "One process at a time changes the schema.", key=0x666C_6565_7401
)
SWEEP = AdvisoryLock("sweep", "One process at a time does a periodic job.")
UNIQUE = AdvisoryLock(
    "unique", "Of those who make an entity with one unique value, one at a time looks for it."
)
