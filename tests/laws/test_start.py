"""Laws of what is loaded: a process imports what it uses, and is soon there."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import SchemaSerializer, SchemaValidator

from bus.running.registry import Registry
from bus.storage import TABLES
from fleetbus.server.service import Service
from tests.fleetbus.cli.program import clean_environment

ROOT = Path(__file__).parents[2]

HANDLER_PROCESS = """
import asyncio
import sys

from fleetbus.server.config import Settings
from fleetbus.server.processes import run
from fleetbus.server.service import Service


async def main():
    service = Service(Settings())
    await service.start()
    print(*sys.modules)
    return 0 if await service.stop() else 1


sys.exit(run(main()))
"""

CLIENT = """
import sys

from contracts.planning.projects import GetProject
from fleetbus.client import connect

print(connect.__module__, *sys.modules)
"""

COMMAND_LINE = """
import sys

from fleetbus.cli.app import main

try:
    sys.exit(main())
finally:
    print(*sys.modules, file=sys.stderr)
"""

SERVERS_OWN = {"sqlalchemy", "asyncpg", "faststream", "pydantic_settings", "cryptography"}
"""What only a handler process needs."""

OTHERS_OWN = {"alembic", "mako", "typer", "click", "rich", "pygments", "prometheus_client"}
"""What only those need who migrate, are at a terminal, or are watched."""


@dataclass(frozen=True)
class Loaded:
    """The modules of a program at its end, by its own words."""

    modules: set[str]

    def of(self, *packages: str) -> set[str]:
        """Those of these packages."""
        return {m for m in self.modules for p in packages if m == p or m.startswith(f"{p}.")}

    @property
    def contexts(self) -> set[str]:
        """The contexts of which a contract is loaded."""
        return {module.split(".")[1] for module in self.of("contracts") if "." in module}


async def loaded(program: str, *arguments: str, **environment: str) -> Loaded:
    """Run a program that says at its end, on its last line, what it has loaded."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        stdout=PIPE,
        stderr=STDOUT,
        cwd=ROOT,
        env=clean_environment() | environment,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return Loaded({*said.decode().splitlines()[-1].split()})


class TestHandlerProcess:
    async def test_loads_only_what_serves(self, database_url: str, nats_url: str) -> None:
        serving = await loaded(HANDLER_PROCESS, DATABASE_URL=database_url, NATS_URL=nats_url)
        assert serving.of(*SERVERS_OWN, "handlers")
        assert serving.of(*OTHERS_OWN) == set()
        wings = ("cli", "demo", "embedded", "importing", "server.migrate", "server.detector.link")
        assert serving.of(*(f"fleetbus.{wing}" for wing in wings)) == set()

    def test_has_built_what_it_binds(self, registry: Registry) -> None:
        for bound in registry.operations.values():
            assert isinstance(bound.validator, SchemaValidator), bound.subject
            assert isinstance(bound.serializer, SchemaSerializer), bound.subject
        assert all(entity.__pydantic_complete__ for entity in TABLES)


class TestClient:
    async def test_loads_the_contracts_that_it_is_given(self) -> None:
        client = await loaded(CLIENT)
        assert client.of("fleetbus.client.calling")
        assert client.of(*SERVERS_OWN, *OTHERS_OWN) == set()
        assert client.contexts == {"planning", "events", "meta"}

    async def test_builds_what_it_calls(self) -> None:
        complete = (
            "from contracts.planning.projects import GetProject, Project, UpdateProject;"
            "from uuid import UUID; GetProject(id=UUID(int=1));"
            "print(*[c.__pydantic_complete__ for c in (GetProject, Project, UpdateProject)])"
        )
        assert (await loaded(complete)).modules == {"True", "False"}

    async def test_events_of_one_kind_need_no_other(self, nats_url: str) -> None:
        reads = (
            "import asyncio, sys\n"
            "from contracts.planning.projects import ProjectFetched\n"
            "from fleetbus.client import connect\n"
            "async def main():\n"
            "    async with connect(sys.argv[1]) as bus, bus.events(ProjectFetched):\n"
            "        print(*sys.modules)\n"
            "asyncio.run(main())"
        )
        assert (await loaded(reads, nats_url)).contexts == {"planning", "events", "meta"}


class TestCommandLine:
    async def test_help_loads_no_library_but_its_own(self) -> None:
        helped = await loaded(COMMAND_LINE, "--help")
        assert helped.of("typer")
        heavy = {*SERVERS_OWN, *OTHERS_OWN, "asyncio", "nats", "pydantic", "pydantic_core"}
        assert helped.of(*heavy - {"typer", "click"}) == set()
        assert helped.contexts == set()

    async def test_a_call_needs_nats_and_json(self, service: Service, nats_url: str) -> None:
        assert service.connected
        calling = await loaded(COMMAND_LINE, "call", "db.meta.operations", NATS_URL=nats_url)
        assert calling.of("typer", "nats")
        heavy = {*SERVERS_OWN, *OTHERS_OWN, "pydantic", "pydantic_core", "bus.contract"}
        assert calling.of(*heavy - {"typer", "click"}) == set()
        assert calling.contexts == set()
