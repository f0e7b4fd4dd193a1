from collections.abc import AsyncIterator

import pytest_asyncio

from fleetbus.server.service import Service
from tests.fleetbus.monitoring.asking import watched


@pytest_asyncio.fixture
async def port(service: Service) -> AsyncIterator[int]:
    """Where the running service is watched."""
    async with watched(service) as port:
        yield port
