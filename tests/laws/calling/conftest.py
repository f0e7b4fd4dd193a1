"""One service and one database for all laws that call: what they need is made as they go."""

import base64
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus import domain
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import Asker, asking
from tests.laws.calling.arranging import Arrangement
from tests.laws.calling.plans import Plans
from tests.laws.calling.rows import Rows
from tests.servers import Accounts, Databases, connection_to

KEY = base64.b64encode(bytes(32)).decode()


@pytest_asyncio.fixture(scope="package")
async def called(template_database: Databases, nats_accounts: Accounts) -> AsyncIterator[Service]:
    """The service that is called; it alone writes to its database, and only when it is called."""
    async with template_database.clone() as database_url:
        settings = Settings(
            database_url=database_url,
            nats_url=await nats_accounts.next_url(),
            credentials_keys=f"one:{KEY}",
            pool_write=4,
            pool_read=2,
            relay=False,
            sweeper=False,
        )
        service = Service(settings, domain.registry())
        await service.start()
        try:
            yield service
        finally:
            assert await service.stop(), "requests were left unanswered"


@pytest_asyncio.fixture(scope="package")
async def ask(called: Service) -> AsyncIterator[Asker]:
    """Who calls. A law that holds for every role asks as each of them, here."""
    async with asking(called.settings.nats_url) as asker:
        yield asker


@pytest_asyncio.fixture(scope="package")
async def db(called: Service) -> AsyncIterator[AsyncConnection]:
    async with connection_to(called.settings.database_url) as connection:
        yield connection


@pytest.fixture(scope="package")
def arranged(ask: Asker, db: AsyncConnection, called: Service) -> Arrangement:
    """What makes that an operation can be called with its example."""
    return Arrangement(ask, db, called.registry)


@pytest.fixture(scope="package")
def rows(db: AsyncConnection) -> Rows:
    return Rows(db)


@pytest_asyncio.fixture(scope="package")
async def plans(called: Service) -> AsyncIterator[Plans]:
    """How the statements of the service would be run."""
    connection = await asyncpg.connect(called.settings.database_url)
    made = Plans(connection)
    await made.prepare()
    yield made
    await connection.close()
