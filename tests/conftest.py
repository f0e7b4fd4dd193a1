from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from tests.servers import ACCOUNTS, Accounts, Databases, PristineCluster, server_directory


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory for servers; short-lived, and reachable for the user that runs Postgres."""
    with server_directory() as directory:
        yield directory


@pytest_asyncio.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """The PostgreSQL server of the run; a test takes `database_url`."""
    with server_directory() as directory:
        server = EmbeddedPostgres(directory, durable=False)
        await server.start()
        try:
            yield server
        finally:
            await server.stop("immediate")


@pytest_asyncio.fixture(scope="session")
async def nats_server() -> AsyncIterator[EmbeddedNats]:
    """The NATS server of the run; a test takes `nats_url`."""
    with server_directory() as directory:
        server = EmbeddedNats(directory, durable=False, accounts=ACCOUNTS)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@pytest_asyncio.fixture(scope="session")
async def template_database(postgres: EmbeddedPostgres) -> Databases:
    """The migrated database that each test gets a clone of."""
    databases = Databases(postgres)
    await databases.prepare()
    return databases


@pytest_asyncio.fixture
async def database_url(template_database: Databases) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with template_database.clone() as url:
        yield url


@pytest.fixture(scope="session")
def nats_accounts(nats_server: EmbeddedNats) -> Accounts:
    return Accounts(nats_server)


@pytest_asyncio.fixture
async def nats_url(nats_accounts: Accounts) -> str:
    """A NATS account of the test's own, with JetStream and without streams."""
    return await nats_accounts.next_url()


@pytest_asyncio.fixture(scope="session")
async def pristine_cluster() -> AsyncIterator[PristineCluster]:
    with server_directory() as directory:
        cluster = PristineCluster(directory)
        await cluster.prepare()
        yield cluster


@pytest_asyncio.fixture
async def own_postgres(
    data_dir: Path, pristine_cluster: PristineCluster
) -> AsyncIterator[EmbeddedPostgres]:
    """A server, not migrated, that the test may stop, kill and start again."""
    pristine_cluster.copy_to(data_dir)
    server = EmbeddedPostgres(data_dir, durable=False)
    await server.start()
    try:
        yield server
    finally:
        await server.stop("immediate")


@pytest_asyncio.fixture
async def own_nats(data_dir: Path) -> AsyncIterator[EmbeddedNats]:
    """A server that the test may stop, kill and start again."""
    server = EmbeddedNats(data_dir, durable=False)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
