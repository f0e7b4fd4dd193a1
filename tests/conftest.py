import gc
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit import logs
from bus.running.registry import Registry
from fleetbus import domain
from fleetbus.client import Bus, connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.counting import Counted, counting
from tests.kit.outbox import Outbox
from tests.kit.shared import FAILED, Shared, Sharing, settings_of, shares
from tests.kit.sweeping import Sweep
from tests.servers import (
    ACCOUNTS,
    Accounts,
    Databases,
    PristineCluster,
    connection_to,
    server_directory,
)
from tests.turns import turn

MOST_WORKERS = 4

# Of every service in a test, in processes of their own too: what is not declared fails.
os.environ["FLEETBUS_STRICT"] = "true"


def pytest_xdist_auto_num_workers() -> int:
    """One for each processor, each with servers of its own; none where there is but one."""
    processors = os.cpu_count() or 1
    return min(processors, MOST_WORKERS) if processors > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that want the machine for themselves come last, when few others wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def its_turn(
    request: pytest.FixtureRequest, worker_id: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The machine, with tests of other workers; a test marked `alone` does not share it."""
    if worker_id == "master":
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    with turn(tmp_path_factory.getbasetemp().parent, alone=alone):
        yield


@pytest.fixture(autouse=True)
def nothing_logged_yet() -> None:
    """Lines that one test had limited are written for the next one."""
    logs.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note that a test has failed: what it leaves behind is not for others."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


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


@pytest_asyncio.fixture(scope="session")
async def sharing(template_database: Databases, nats_accounts: Accounts) -> AsyncIterator[Sharing]:
    sharing = Sharing(template_database, nats_accounts)
    try:
        yield sharing
    finally:
        await sharing.close()


@pytest_asyncio.fixture
async def shared(
    request: pytest.FixtureRequest, sharing: Sharing, registry: Registry
) -> AsyncIterator[Shared | None]:
    """The running service, emptied, that this test may have; none if it needs one of its own."""
    if not shares(request.node):
        yield None
        return
    stash = request.node.stash
    async with sharing.turn(registry, lambda: stash.get(FAILED, False)) as shared:
        yield shared


@pytest_asyncio.fixture
async def database_url(shared: Shared | None, template_database: Databases) -> AsyncIterator[str]:
    """A migrated database that nobody else uses while the test runs."""
    if shared is not None:
        yield shared.settings.database_url
        return
    async with template_database.clone() as url:
        yield url


@pytest.fixture(scope="session")
def nats_accounts(nats_server: EmbeddedNats) -> Accounts:
    return Accounts(nats_server)


@pytest_asyncio.fixture
async def nats_url(shared: Shared | None, nats_accounts: Accounts) -> str:
    """A NATS account that nobody else uses while the test runs, with JetStream."""
    return shared.settings.nats_url if shared is not None else await nats_accounts.next_url()


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


@pytest.fixture
def settings(database_url: str, nats_url: str) -> Settings:
    """The settings of a service on the test's own database and NATS account."""
    return settings_of(database_url, nats_url)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return domain.registry()


@pytest_asyncio.fixture
async def service(
    settings: Settings, registry: Registry, shared: Shared | None
) -> AsyncIterator[Service]:
    """A running service, in this process."""
    if shared is not None:
        yield shared.service
        return
    running = Service(settings, registry)
    await running.start()
    try:
        yield running
    finally:
        assert await running.stop(), "requests were left unanswered"


@pytest_asyncio.fixture
async def bus(service: Service, nats_url: str) -> AsyncIterator[Bus]:
    """A client of the running service."""
    assert service.client.is_connected
    async with connect(nats_url, timeout=10) as client:
        yield client


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A connection to the test's database, in autocommit, for arranging and looking."""
    async with connection_to(database_url) as connection:
        yield connection


@pytest.fixture
def outbox(db: AsyncConnection) -> Outbox:
    """The events that were emitted."""
    return Outbox(db)


@pytest.fixture
def sweep(service: Service) -> Sweep:
    """Runs one step of a job: ``await sweep("expire_test_runs")``."""
    return Sweep(service)


@pytest.fixture
def statements(service: Service) -> Callable[[], AbstractContextManager[Counted]]:
    """Counts the SQL statements that the service runs: ``with statements() as counted: ...``."""

    @contextmanager
    def count() -> Iterator[Counted]:
        with counting(service.database) as counted:
            yield counted

    return count
