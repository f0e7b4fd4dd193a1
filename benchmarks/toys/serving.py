"""A handler process on a domain of toys: ``python -m benchmarks.toys.serving``.

``TOYS`` names the directory in which the domain lies; without it, it is the real one. With
``--create`` the tables are made and nothing is served.
"""

import os
import sys

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateSchema

from benchmarks.toys.lean import WITHOUT
from bus.running.registry import Registry
from bus.storage.database import driver_url
from bus.storage.tables import Row
from fleetbus import domain
from fleetbus.server.config import Settings
from fleetbus.server.processes import run, stop_on_signals
from fleetbus.server.service import Service

sys.modules[WITHOUT] = None  # type: ignore[assignment]  # and so it stays


def registry() -> Registry:
    """The operations that are served."""
    if not (directory := os.environ.get("TOYS")):
        return domain.registry()
    from benchmarks.toys.making import PACKAGES

    sys.path.insert(0, directory)
    return domain.registry(packages=PACKAGES)


async def serve() -> int:
    """Serve until a signal."""
    stopped = stop_on_signals()
    service = Service(Settings(), registry())
    await service.start()
    print("ready", flush=True)
    await stopped.wait()
    return 0 if await service.stop() else 1


async def create() -> int:
    """Make the tables of all contexts, in a database that has those of the bus."""
    schemas = [context.name for context in registry().catalogue.contexts]
    tables = [table for table in Row.metadata.tables.values() if table.schema in schemas]
    engine = create_async_engine(driver_url(Settings().database_url))
    async with engine.begin() as connection:
        for schema in schemas:
            await connection.execute(CreateSchema(schema))
        await connection.run_sync(Row.metadata.create_all, tables=tables)
    await engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(run(create() if "--create" in sys.argv else serve()))
