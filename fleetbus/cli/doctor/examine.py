"""What ``fleetbus doctor`` looks at: servers, schema, stream, relay, sweeper, detector, keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fleetbus.cli.doctor.check import Check
from fleetbus.cli.doctor.nats import examine_nats
from fleetbus.cli.doctor.postgres import examine_postgres
from fleetbus.server.config import Settings


async def examine(settings: Settings) -> list[Check]:
    """Look at everything that can be looked at; what rests on something missing is left out."""
    postgres, bus = await asyncio.gather(
        _collect(examine_postgres(settings)), _collect(examine_nats(settings))
    )
    return [*postgres, *bus]


async def _collect(checks: AsyncIterator[Check]) -> list[Check]:
    return [check async for check in checks]
