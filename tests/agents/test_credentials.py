"""Credentials: sealed at rest, told to who asks, and nowhere else."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import CredentialsNotSet, CredentialsUnreadable, DryRunRefused
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from bus.running.transaction import begin
from bus.storage.sealed import KeyRing
from contracts.agents.accounts import (
    Account,
    CreateAccount,
    Credentials,
    RevealAccountCredentials,
    SetAccountCredentials,
)
from fleetbus.client import Bus, connect
from fleetbus.server.config import Settings
from fleetbus.server.keys import key_ring, make_key_file
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import Sweep, sweeps
from tests.bus.outages import serving
from tests.fleetbus.cli.program import started
from tests.kit.outbox import Outbox

SECRET = "planted-f3a9c1"
CREDENTIALS: dict[str, Any] = {"token": SECRET, "refresh": [SECRET]}


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


OLD, NEW = f"old:{key(1)}", f"new:{key(2)}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"credentials_keys": OLD})


@pytest.fixture
async def account(bus: Bus) -> Account:
    return await bus.call(CreateAccount(email="fleet@example.com"))


async def key_ids(db: AsyncConnection) -> list[str]:
    return list((await db.execute(text("SELECT key_id FROM agents.credentials"))).scalars())


class TestSetAccountCredentials:
    async def test_kept_sealed_and_revealed(
        self, bus: Bus, account: Account, db: AsyncConnection, outbox: Outbox
    ) -> None:
        changed = await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))

        revealed = await bus.call(RevealAccountCredentials(id=account.id))
        assert (changed.has_credentials, revealed.credentials) == (True, CREDENTIALS)
        row = (await db.execute(text("SELECT * FROM agents.credentials"))).one()
        assert SECRET.encode() not in row.ciphertext
        assert (await outbox.last()).type == "account.credentials_changed"

    async def test_anew_and_removed(self, bus: Bus, account: Account, db: AsyncConnection) -> None:
        other: dict[str, Any] = {"token": "other"}
        for credentials in (CREDENTIALS, other):
            await bus.call(SetAccountCredentials(id=account.id, credentials=credentials))
        assert (await bus.call(RevealAccountCredentials(id=account.id))).credentials == other

        removed = await bus.call(SetAccountCredentials(id=account.id, credentials=None))

        assert removed.has_credentials is False
        assert await key_ids(db) == []

    async def test_those_of_one_account_do_not_open_for_another(
        self, bus: Bus, account: Account, db: AsyncConnection
    ) -> None:
        other = await bus.call(CreateAccount(email="other@example.com"))
        await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))
        await db.execute(text("UPDATE agents.credentials SET id = :id"), {"id": other.id})

        with pytest.raises(CredentialsUnreadable):
            await bus.call(RevealAccountCredentials(id=other.id))


class TestRevealAccountCredentials:
    async def test_it_is_put_on_record(
        self, bus: Bus, account: Account, db: AsyncConnection, outbox: Outbox
    ) -> None:
        await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))
        told = await outbox.count()

        await bus.call(RevealAccountCredentials(id=account.id))

        query = "SELECT actor, kind, entity, entity_id, detail FROM bus.audit"
        rows = [tuple(row) for row in await db.execute(text(query))]
        assert rows == [(None, "credentials.revealed", "account", str(account.id), {})]
        assert await outbox.count() == told

    async def test_never_in_a_dry_run(
        self, bus: Bus, account: Account, db: AsyncConnection
    ) -> None:
        await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))

        with pytest.raises(DryRunRefused):
            await bus.call(RevealAccountCredentials(id=account.id), dry_run=True)

        assert (await db.execute(text("SELECT count(*) FROM bus.audit"))).scalar_one() == 0

    async def test_without_any(self, bus: Bus, account: Account, db: AsyncConnection) -> None:
        with pytest.raises(CredentialsNotSet):
            await bus.call(RevealAccountCredentials(id=account.id))
        assert (await db.execute(text("SELECT count(*) FROM bus.audit"))).scalar_one() == 0

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            ("", "no key for credentials is configured"),
            (NEW, "the key old is not in the key ring"),
            (f"old:{key(3)}", "the key old is not the one that encrypted them"),
            ("old:short", "key 1 of the key ring is not base64"),
            (f"old:{key(1)[:8]}", "key old has 6 bytes, not 32"),
            (f"{OLD},{OLD}", "key 2 of the key ring has no id of its own"),
        ],
    )
    async def test_with_other_keys(
        self,
        service: Service,
        registry: Registry,
        bus: Bus,
        account: Account,
        keys: str,
        reason: str,
    ) -> None:
        """The process starts; what needs the key says which one, and no value."""
        await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))
        urls = service.settings.database_url, service.settings.nats_url
        await service.stop()

        async with serving(registry, *urls, credentials_keys=keys), connect(urls[1]) as other:
            with pytest.raises(CredentialsUnreadable) as refused:
                await other.request(RevealAccountCredentials(id=account.id), keyed=False)

        assert (refused.value.reason, refused.value.retryable) == (reason, False)


class TestRotateCredentials:
    async def test_with_the_newest_key_and_nothing_told(
        self,
        service: Service,
        registry: Registry,
        bus: Bus,
        account: Account,
        db: AsyncConnection,
        outbox: Outbox,
    ) -> None:
        await bus.call(SetAccountCredentials(id=account.id, credentials=CREDENTIALS))
        told = await outbox.count()

        async def rotate(keys: str) -> int:
            ring = KeyRing.parse(keys)
            [task] = [
                one
                for one in sweeps(registry, service.settings, ring)
                if one.name == "rotate_credentials" and isinstance(one, Sweep)
            ]
            async with begin(service.database, left=lambda: 10.0) as tx:
                handled = await task.step(tx)
                await tx.commit()
            return handled

        assert [await rotate(OLD), await rotate(""), await rotate(NEW)] == [0, 0, 0]
        assert await rotate(f"{NEW},{OLD}") == 1
        assert await rotate(f"{NEW},{OLD}") == 0
        assert await key_ids(db) == ["new"]
        assert await outbox.count() == told
        with pytest.raises(CredentialsUnreadable):
            await bus.call(RevealAccountCredentials(id=account.id))


class TestKeyFile:
    def test_made_once_and_only_for_its_owner(self, tmp_path: Path) -> None:
        file = make_key_file(tmp_path / "keys")
        content = file.read_text()

        assert make_key_file(file).read_text() == content
        assert file.stat().st_mode & 0o777 == 0o600
        assert key_ring(Settings(credentials_key_file=file)).ids == ("first",)

    def test_open_to_others_or_away(self, tmp_path: Path) -> None:
        file = make_key_file(tmp_path / "keys")
        file.chmod(0o640)

        ring = key_ring(Settings(credentials_key_file=file))
        away = key_ring(Settings(credentials_key_file=tmp_path / "none"))

        assert (ring.ids, "mode 0640" in ring.problem) == ((), True)
        assert away.problem == "the key file cannot be read: FileNotFoundError"

    def test_comments_and_lines(self) -> None:
        ring = KeyRing.parse(f"# keys\n{NEW}  # since spring\n\n{OLD}\n")

        assert (ring.ids, ring.newest) == (("new", "old"), "new")
        assert key(1) not in repr(ring)


async def test_a_secret_is_nowhere_else(
    database_url: str, nats_url: str, db: AsyncConnection, outbox: Outbox
) -> None:
    """Grepped: logs at DEBUG, events, refusals, ``repr``, stored replies, every table."""
    environment: dict[str, Any] = {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "FLEETBUS_LOG_LEVEL": "DEBUG",
        "FLEETBUS_CREDENTIALS_KEYS": OLD,
    }
    async with started("serve", "--wait", **environment) as process, connect(nats_url) as bus:
        account = await bus.call(CreateAccount(email="fleet@example.com"))
        command = SetAccountCredentials(id=account.id, credentials=CREDENTIALS)
        await bus.call(command, key="once")
        await bus.call(command, key="once")
        revealed = await bus.call(RevealAccountCredentials(id=account.id))
        answers = [
            await bus.nats.request(
                "db.accounts.set_credentials", json.dumps(wrong).encode(), timeout=10
            )
            for wrong in (
                {"id": str(account.id), "credentials": SECRET},
                {"id": str(account.id), "credentials": {"token": SECRET}, "extra": SECRET},
                {"id": SECRET, "credentials": {"token": SECRET}},
                {"id": str(uuid7()), "credentials": {"token": SECRET}},
            )
        ]
        assert process.returncode is None
        process.terminate()
        out, err = await process.communicate()

    assert revealed.credentials == CREDENTIALS
    seen = [out, err, *(answer.data for answer in answers)]
    seen += [json.dumps(answer.headers).encode() for answer in answers]
    assert len(err) > 200
    for table in (
        "bus.requests",
        "bus.outbox",
        "bus.audit",
        "agents.accounts",
        "agents.credentials",
    ):
        rows = (await db.execute(text(f"SELECT t::text FROM {table} AS t"))).scalars()
        seen += [row.encode() for row in rows]
    settings = Settings(credentials_keys=OLD)
    for thing in (command, revealed, Credentials(id=account.id, credentials=CREDENTIALS), settings):
        seen += [repr(thing).encode(), str(thing).encode()]
    assert not [where for where in seen if SECRET.encode() in where or key(1).encode() in where]
    assert not [event for event in await outbox.all() if SECRET in str(event.data)]
    assert os.environ.get("FLEETBUS_CREDENTIALS_KEYS") is None
