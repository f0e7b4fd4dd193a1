from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bus.running.registry import Registry
from fleetbus import domain
from fleetbus.server.service import Service
from tests.bus.asking import Asker, asking
from tests.bus.probes import with_probes


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All operations, and the probes."""
    return with_probes(domain.registry())


@pytest_asyncio.fixture
async def ask(service: Service, nats_url: str) -> AsyncIterator[Asker]:
    """A plain NATS client of the running service."""
    assert service.client.is_connected
    async with asking(nats_url) as asker:
        yield asker
