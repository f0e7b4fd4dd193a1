import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, CredentialsUnreadable, VersionConflict
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from contracts.agents.accounts import (
    Account,
    AcquireAccount,
    ClearAccountExhausted,
    CreateAccount,
    DeleteAccount,
    GetAccount,
    ListAccounts,
    MarkAccountExhausted,
    NoAccountAvailable,
    SetAccountCredentials,
    UpdateAccount,
)
from contracts.agents.agents import GetAgent, RegisterAgent
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.bus.outages import serving
from tests.kit.outbox import Outbox

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AWAY = datetime(2100, 1, 1, tzinfo=UTC)


async def create(bus: Bus, name: str = "a", **values: Any) -> Account:
    return await bus.call(CreateAccount(email=f"{name}@example.com", **values))


class TestCreateAccount:
    async def test_available_and_without_credentials(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus, config={"region": "eu"}, sort_order=3)

        assert (account.provider, account.config, account.sort_order) == (
            *("claude", {"region": "eu"}, 3),
        )
        assert (account.is_exhausted, account.has_credentials) == (False, False)
        assert account.last_used_at is None
        assert await outbox.types() == ["account.created"]

    async def test_an_address_once_per_provider(self, bus: Bus) -> None:
        await create(bus)
        await create(bus, provider="other")

        with pytest.raises(AlreadyExists) as refused:
            await create(bus)

        assert refused.value.fields == "provider and email"


class TestListAccounts:
    async def test_exhausted_now(self, bus: Bus) -> None:
        free, over, until, ever = [
            await create(bus, name, sort_order=n) for n, name in enumerate("abcd")
        ]
        other = await create(bus, "e", provider="other")
        for account, end in ((over, LONG_AGO), (until, FAR_AWAY), (ever, None)):
            await bus.call(MarkAccountExhausted(id=account.id, until=end))

        async def ids(**filters: Any) -> list[Any]:
            return [one.id for one in (await bus.call(ListAccounts(**filters))).items]

        assert await ids(provider="claude") == [free.id, over.id, until.id, ever.id]
        assert await ids(exhausted=True) == [until.id, ever.id]
        assert await ids(exhausted=False, provider="claude") == [free.id, over.id]
        assert await ids(provider="other") == [other.id]


class TestUpdateAccount:
    async def test_what_is_named(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)

        updated = await bus.call(UpdateAccount(id=account.id, sort_order=7))

        assert (updated.sort_order, updated.email, updated.version) == (7, account.email, 2)
        assert await bus.call(UpdateAccount(id=account.id, sort_order=7)) == updated
        assert await outbox.types() == ["account.created", "account.updated"]
        with pytest.raises(VersionConflict):
            await bus.call(UpdateAccount(id=account.id, sort_order=8, expected_version=1))
        await create(bus, "b")
        with pytest.raises(AlreadyExists):
            await bus.call(UpdateAccount(id=account.id, email="b@example.com"))


class TestDeleteAccount:
    async def test_its_agents_go_on_without(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)
        agent = await bus.call(RegisterAgent(account_id=account.id))

        await bus.call(DeleteAccount(id=account.id))

        assert (await bus.call(GetAgent(id=agent.id))).account_id is None
        assert (await outbox.types())[-2:] == ["account.deleted", "agent.updated"]


class TestAcquireAccount:
    async def test_never_used_first_then_the_longest_rested(self, bus: Bus) -> None:
        last, first, second = [
            await create(bus, name, sort_order=order)
            for name, order in (("a", 9), ("b", 1), ("c", 2))
        ]

        taken = [(await bus.call(AcquireAccount())).id for _ in range(5)]

        assert taken == [first.id, second.id, last.id, first.id, second.id]

    async def test_64_at_once_on_10_are_spread_evenly(
        self, bus: Bus, service: Service, registry: Registry
    ) -> None:
        accounts = [await create(bus, str(n)) for n in range(10)]
        tired = await create(bus, "tired")
        await bus.call(MarkAccountExhausted(id=tired.id, until=FAR_AWAY))
        settings = service.settings

        async with serving(registry, settings.database_url, settings.nats_url):
            taken = await asyncio.gather(*(bus.call(AcquireAccount()) for _ in range(64)))

        used = Counter(account.id for account in taken)
        assert used.keys() == {account.id for account in accounts}
        assert set(used.values()) == {6, 7}
        stamps = [account.last_used_at for account in taken]
        assert len(set(stamps)) == 64

    async def test_exhaustion_that_is_over_ends_at_once(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)
        await bus.call(MarkAccountExhausted(id=account.id, until=LONG_AGO))

        taken = await bus.call(AcquireAccount())

        assert (taken.id, taken.is_exhausted, taken.exhausted_until) == (account.id, False, None)
        assert (await outbox.types())[-2:] == ["account.available", "account.updated"]

    async def test_none_left(self, bus: Bus) -> None:
        with pytest.raises(NoAccountAvailable) as refused:
            await bus.call(AcquireAccount(provider="nobody"))
        assert refused.value.earliest is None
        for name, until in (("a", FAR_AWAY), ("b", FAR_AWAY - timedelta(days=1)), ("c", None)):
            account = await create(bus, name)
            await bus.call(MarkAccountExhausted(id=account.id, until=until))

        with pytest.raises(NoAccountAvailable) as refused:
            await bus.call(AcquireAccount())

        assert refused.value.earliest == FAR_AWAY - timedelta(days=1)


class TestMarkAccountExhausted:
    async def test_again_only_with_another_time(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)
        for until in (FAR_AWAY, FAR_AWAY, None):
            marked = await bus.call(MarkAccountExhausted(id=account.id, until=until))

        assert (marked.is_exhausted, marked.exhausted_until) == (True, None)
        assert (await outbox.types())[1:] == ["account.exhausted"] * 2

    async def test_never_shortened(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)
        marked = await bus.call(MarkAccountExhausted(id=account.id, until=FAR_AWAY))

        sooner = FAR_AWAY - timedelta(days=1)
        assert await bus.call(MarkAccountExhausted(id=account.id, until=sooner)) == marked
        forever = await bus.call(MarkAccountExhausted(id=account.id))
        assert forever.exhausted_until is None
        assert await bus.call(MarkAccountExhausted(id=account.id, until=FAR_AWAY)) == forever

        assert (await outbox.types())[1:] == ["account.exhausted"] * 2
        await bus.call(ClearAccountExhausted(id=account.id))
        again = await bus.call(MarkAccountExhausted(id=account.id, until=sooner))
        assert again.exhausted_until == sooner


class TestClearAccountExhausted:
    async def test_once(self, bus: Bus, outbox: Outbox) -> None:
        account = await create(bus)
        await bus.call(MarkAccountExhausted(id=account.id))

        cleared = await bus.call(ClearAccountExhausted(id=account.id))

        assert cleared.is_exhausted is False
        assert await bus.call(ClearAccountExhausted(id=account.id)) == cleared
        assert (await outbox.types())[1:] == ["account.exhausted", "account.available"]
        assert (await bus.call(AcquireAccount())).id == account.id


class TestEndExhaustion:
    async def test_by_the_sweeper_too(
        self, bus: Bus, db: AsyncConnection, registry: Registry, service: Service, outbox: Outbox
    ) -> None:
        account = await create(bus)
        await bus.call(MarkAccountExhausted(id=account.id, until=LONG_AGO))
        ever = await create(bus, "b")
        await bus.call(MarkAccountExhausted(id=ever.id))
        settings = service.settings

        async with serving(registry, settings.database_url, settings.nats_url, sweeper=True):
            async with asyncio.timeout(20):
                while (await bus.call(GetAccount(id=account.id))).is_exhausted:  # noqa: ASYNC110  another process ends it
                    await asyncio.sleep(0.01)

        assert (await bus.call(GetAccount(id=ever.id))).is_exhausted
        [event] = await outbox.all("account.available")
        assert event.cause == "sweeper:end_exhaustion"


class TestSetAccountCredentials:
    @pytest.mark.parametrize("credentials", [{"token": "t"}, None])
    async def test_with_a_key_where_the_service_has_none_to_keep_the_reply(
        self, bus: Bus, credentials: dict[str, Any] | None
    ) -> None:
        with pytest.raises(CredentialsUnreadable, match="takes no idempotency key"):
            await bus.call(SetAccountCredentials(id=uuid7(), credentials=credentials))
