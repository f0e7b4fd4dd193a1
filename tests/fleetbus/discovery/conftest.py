from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from bus.contract.catalogue import Catalogue
from bus.running.stats import Stats
from fleetbus import domain
from fleetbus.server.discovery.srv import Discovery
from tests.fleetbus.discovery.asking import connected, registry_of, stats_of


@pytest.fixture
def catalogue() -> Catalogue:
    return domain.catalogue()


@pytest.fixture
def stats(catalogue: Catalogue) -> Stats:
    return stats_of(catalogue)


@pytest_asyncio.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    """Who asks."""
    client = await connected(nats_url)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def discovery(nats_url: str, catalogue: Catalogue, stats: Stats) -> AsyncIterator[Discovery]:
    """A process that answers."""
    own = await connected(nats_url)
    discovery = Discovery(own, registry_of(catalogue), stats, version="1.2.3")
    await discovery.start()
    yield discovery
    await discovery.stop()
    await own.close()
