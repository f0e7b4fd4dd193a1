"""Secret operations: what is kept of them is sealed, and nothing of them is logged."""

import base64
import hashlib
import json
import logging
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.dispatcher import fingerprint
from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import Asker, Got, asking, count_of
from tests.bus.outages import serving

SECRET = "planted-secret-of-some-length-7d1e"
SUBJECT = "db.probes.secret"
BODY = {"secret": SECRET}
RAW = json.dumps(BODY).encode()


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


OLD, NEW = f"old:{key(1)}", f"new:{key(2)}"

REPLIES = "INSERT INTO bus.requests (caller, key, fingerprint, status, reply) VALUES "


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"credentials_keys": OLD})


async def everything(db: AsyncConnection) -> str:
    """All rows of all tables of the bus, as text."""
    tables = await db.execute(
        text("SELECT tablename FROM pg_tables WHERE schemaname = 'bus' ORDER BY 1")
    )
    rows: list[str] = []
    for table in tables.scalars().all():
        rows += (await db.execute(text(f'SELECT t::text FROM bus."{table}" AS t'))).scalars()
    return "\n".join(rows)


def forms(secret: str, subject: str, raw: bytes) -> set[str]:
    """What a secret could be found as: itself, in base64 and hex, and hashes of the request."""
    plain = secret.encode()
    shifted = [base64.b64encode(b"\0" * n + plain)[4:-4].decode() for n in range(3)]
    hashes = [hashlib.sha256(what).hexdigest() for what in (raw, plain)]
    return {secret, plain.hex(), *shifted, *hashes, fingerprint(subject, raw)}


async def found(db: AsyncConnection, subject: str = SUBJECT, raw: bytes = RAW) -> set[str]:
    rows = await everything(db)
    return {form for form in forms(SECRET, subject, raw) if form in rows}


class TestRepeat:
    async def test_it_gets_the_same_bytes(self, ask: Asker, db: AsyncConnection) -> None:
        first, second = [await ask(SUBJECT, BODY, key="k") for _ in range(2)]

        assert first.body == BODY
        assert second.data == first.data
        assert (first.replayed, second.replayed) == (False, True)
        assert await count_of(db, "bus.requests") == 1

    async def test_nothing_of_it_can_be_read(self, ask: Asker, db: AsyncConnection) -> None:
        assert (await ask(SUBJECT, BODY, key="k")).status == 200

        assert await count_of(db, "bus.requests") == 1
        assert await found(db) == set()

    async def test_of_what_is_not_secret_it_would_be_found(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        body = {"sql": [f"SELECT '{SECRET}'", f"SELECT encode('{SECRET}', 'base64')"]}
        assert (await ask("db.probes.run", body, key="k")).status == 200

        there = await found(db, "db.probes.run", json.dumps(body).encode())

        assert {SECRET, fingerprint("db.probes.run", json.dumps(body).encode())} <= there
        assert len(there) == 3

    async def test_another_body_is_refused(self, ask: Asker) -> None:
        await ask(SUBJECT, BODY, key="k")

        got = await ask(SUBJECT, {"secret": "other"}, key="k")

        assert (got.status, got.type) == (409, "idempotency_key_reused")

    async def test_the_key_of_a_command_that_is_not_secret(self, ask: Asker) -> None:
        await ask("db.probes.run", {"sql": []}, key="plain")
        await ask(SUBJECT, BODY, key="sealed")

        got = [
            await ask(SUBJECT, BODY, key="plain"),
            await ask("db.probes.run", {"sql": []}, key="sealed"),
        ]

        assert [one.type for one in got] == ["idempotency_key_reused"] * 2

    async def test_a_row_that_was_copied_does_not_open(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        await ask(SUBJECT, BODY, key="k")
        await db.execute(text("UPDATE bus.requests SET key = 'other'"))

        assert (await ask(SUBJECT, BODY, key="other")).type == "idempotency_key_reused"

    async def test_a_reply_that_was_copied_does_not_open(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        for name in ("k", "other"):
            await ask(SUBJECT, BODY, key=name)
        copy = "UPDATE bus.requests SET reply = (SELECT reply FROM bus.requests WHERE key = 'k')"
        await db.execute(text(copy))

        got = await ask(SUBJECT, BODY, key="other")

        assert (got.status, got.type) == (503, "credentials_unreadable")
        assert (await ask(SUBJECT, BODY, key="k")).replayed

    async def test_one_that_was_kept_before_they_were_sealed(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        values = {"fingerprint": fingerprint(SUBJECT, RAW), "reply": '{"kept": "before"}'}
        await db.execute(text(f"{REPLIES} ('', 'k', :fingerprint, 200, :reply)"), values)

        got = await ask(SUBJECT, BODY, key="k")

        assert (got.body, got.replayed) == ({"kept": "before"}, True)


class TestKeyRing:
    async def asked(
        self, service: Service, registry: Registry, keys: str, **request: Any
    ) -> list[Got]:
        """Asked with the keys of the service, and then again with others."""
        urls = service.settings.database_url, service.settings.nats_url
        async with asking(urls[1]) as ask:
            first = await ask(SUBJECT, BODY, **request)
        await service.stop()
        async with serving(registry, *urls, credentials_keys=keys), asking(urls[1]) as ask:
            return [first, await ask(SUBJECT, BODY, **request)]

    async def test_a_newer_key_that_writes(self, service: Service, registry: Registry) -> None:
        first, second = await self.asked(service, registry, f"{NEW},{OLD}", key="k")

        assert (second.data, second.replayed) == (first.data, True)

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            (NEW, "the key old is not in the key ring"),
            ("", "no key for credentials is configured; without one"),
        ],
    )
    async def test_the_key_is_gone(
        self, service: Service, registry: Registry, db: AsyncConnection, keys: str, reason: str
    ) -> None:
        """Said, and not done again."""
        _, second = await self.asked(service, registry, keys, key="k")

        assert (second.status, second.type) == (503, "credentials_unreadable")
        assert second.body["detail"].startswith(reason)
        assert await count_of(db, "bus.requests") == 1

    async def test_another_key_of_the_same_name(self, service: Service, registry: Registry) -> None:
        _, second = await self.asked(service, registry, f"old:{key(3)}", key="k")

        assert (second.status, second.type) == (409, "idempotency_key_reused")

    async def test_without_keys_it_is_done_without_an_idempotency_key(
        self, service: Service, registry: Registry
    ) -> None:
        _, second = await self.asked(service, registry, "")

        assert second.body == BODY


class TestLogs:
    @pytest.fixture(autouse=True)
    def _everything(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

    async def test_of_one_that_succeeds(self, ask: Asker, caplog: pytest.LogCaptureFixture) -> None:
        assert (await ask(SUBJECT, BODY, key="k")).status == 200

        assert SECRET not in caplog.text

    @pytest.mark.parametrize("then", ["raise", "violate", "answer wrongly"])
    async def test_of_an_internal_failure(
        self, ask: Asker, caplog: pytest.LogCaptureFixture, then: str
    ) -> None:
        got = await ask(SUBJECT, BODY | {"then": then}, key="k")

        assert (got.status, got.type) == (500, "internal_error")
        assert got.body["error_id"] in caplog.text
        assert "in secret_probe" in caplog.text, "where it came from is told"
        assert SECRET not in caplog.text + got.data.decode() + str(got.headers)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"secret": {SECRET: SECRET}}, "Input should be a valid string"),
            ({"secret": f"0{SECRET}"}, "is not valid"),
            ({"secret": f"{SECRET}\0"}, "Value error, must not contain the character U+0000"),
            (BODY | {"parts": {SECRET: 1, f"{SECRET}!": "x"}}, "Input should be a valid integer"),
            (BODY | {"then": 1}, "Input should be 'answer', 'raise', 'violate' or"),
        ],
    )
    async def test_of_an_invalid_request(
        self, ask: Asker, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], message: str
    ) -> None:
        got = await ask(SUBJECT, wrong, key="k")

        assert (got.status, got.type) == (400, "invalid_request")
        assert got.body["errors"][0]["message"].startswith(message)
        assert SECRET not in caplog.text + got.data.decode() + str(got.headers)
