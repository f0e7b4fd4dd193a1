from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fleetbus.bus.registry import Registry, load
from fleetbus.service import Service
from tests.bus.asking import Asker, asking
from tests.bus.probes import with_probes


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All operations, and the probes."""
    return with_probes(load())


@pytest_asyncio.fixture
async def ask(service: Service, nats_url: str) -> AsyncIterator[Asker]:
    """A plain NATS client of the running service."""
    assert service.client.is_connected
    async with asking(nats_url) as asker:
        yield asker
