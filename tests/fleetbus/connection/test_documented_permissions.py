"""The configurations in the documentation, run by a real server: nobody reads another's answers."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.kit.nats_io import flush
from contracts.planning.tasks import ListTasks
from fleetbus.client import connect
from fleetbus.client.connection.client import SteadyClient
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.config import Settings
from fleetbus.server.service import Service

DOCS = Path(__file__).parents[3] / "docs"
BLOCK = re.compile(r"```text\n(.*?)```", re.DOTALL)


def documented(page: str, beginning: str) -> str:
    [block] = [b for b in BLOCK.findall((DOCS / page).read_text()) if beginning in b]
    return re.sub(r"\$[A-Z_]+PASSWORD", "secret", block)


class DocumentedNats(EmbeddedNats):
    """A server with the accounts that a page shows."""

    def __init__(self, data_dir: Path, accounts: str) -> None:
        super().__init__(data_dir, durable=False)
        self._documented = accounts

    def user(self, name: str) -> str:
        return f"nats://{name}:secret@127.0.0.1:{self.port}"

    def _write_config(self) -> Path:
        config = super()._write_config()
        shared = config.read_text().partition("ping_interval")[0]
        jetstream = f'jetstream {{ store_dir: "{self._directory}" }}\n'
        config.write_text(shared + jetstream + self._documented)
        return config


@pytest.fixture(params=["operating", "clients"])
async def server(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[DocumentedNats]:
    accounts = documented("operating.md", "accounts {")
    if request.param == "clients":
        users = documented("clients.md", "users: [")
        handlers = "{ user: handlers, password: secret }"
        accounts = "accounts { FLEET { jetstream: enabled\n" + users.replace(
            "users: [", f"users: [ {handlers}\n"
        )
        accounts += "} }\n"
    server = DocumentedNats(data_dir, accounts)
    await server.start()
    yield server
    await server.stop()


async def test_each_caller_has_an_inbox_of_its_own(
    server: DocumentedNats, settings: Settings
) -> None:
    handlers = {"nats_url": server.user("handlers"), "inbox_prefix": "_INBOX.handlers"}
    service = Service(settings.model_copy(update=handlers))
    await service.start()
    try:
        async with connect(server.user("otter"), inbox_prefix="_INBOX.otter") as otter:
            assert (await otter.call(ListTasks())).items == []
            for subject in ("_INBOX.>", "_INBOX.*.>", "_INBOX.heron.>", "_INBOX.handlers.>"):
                await otter.nats.subscribe(subject)
            await flush(otter.nats)
            assert not service.client.refused
            assert isinstance(otter.nats, SteadyClient)
            assert len(otter.nats.refused) == 4
        assert service.can_serve()
        assert service.client.new_inbox().startswith("_INBOX.handlers.")
    finally:
        assert await service.stop()
