"""Nobody is connected to NATS but by the client that no message and no server makes deaf."""

import re
from pathlib import Path

import fleetbus
from fleetbus.client.connection import client
from fleetbus.server.wire.broker import Wire

ROOT = Path(fleetbus.__file__).parent
MAKING = re.compile(
    r"\bnats\.connect\(|\bfrom nats import connect\b|\b(?:NatsClient|NATS|NatsBroker)\("
)
THEIRS = re.compile(r"^\s*from nats\.aio\.client import .*\bClient$", re.MULTILINE)
MADE = re.compile(r"\bClient\(")


def makes_theirs(source: str) -> bool:
    return bool(MAKING.search(source) or (THEIRS.search(source) and MADE.search(source)))


def test_nobody_makes_a_client_of_nats_py() -> None:
    assert not [path for path in ROOT.rglob("*.py") if makes_theirs(path.read_text())]


def test_it_would_be_seen() -> None:
    assert makes_theirs("from nats.aio.client import Client\nnats = Client()\n")


def test_one_place_makes_ours() -> None:
    making = {path for path in ROOT.rglob("*.py") if "SteadyClient()" in path.read_text()}
    assert making == {Path(client.__file__)}


async def test_the_broker_has_one_of_ours(nats_url: str) -> None:
    wire = Wire(nats_url)
    try:
        assert type(await wire.connect()) is client.SteadyClient
    finally:
        await wire.close()
