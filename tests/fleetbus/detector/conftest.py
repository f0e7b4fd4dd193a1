from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fleetbus.client import Bus
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.config import Settings
from tests.fleetbus.detector.working import GRACE, RECONNECT_TIME, History, history


@pytest.fixture
def settings(settings: Settings, nats_server: EmbeddedNats) -> Settings:
    """A service that hears of lost connections, and waits less for them than by default."""
    heard = {
        "nats_system_url": nats_server.system_url,
        "suspicion_grace": GRACE,
        "reconnect_time": RECONNECT_TIME,
        "sweeper": True,
    }
    return settings.model_copy(update=heard)


@pytest_asyncio.fixture
async def told(bus: Bus) -> AsyncIterator[History]:
    """Everything that the stream holds, as it comes."""
    async with history(bus) as found:
        yield found
