"""What happens to accounts."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import CredentialsNotSet
from bus.handling import Audit, Decision, Emit, changes, decider, handler
from bus.storage import KeyRing, lock_for_deletion, remove
from bus.storage import entities as _entities
from contracts.agents.accounts import (
    Account,
    AccountCreated,
    AccountCredentialsChanged,
    AccountDeleted,
    AccountDeletion,
    AccountExhausted,
    AccountUpdated,
    AcquireAccount,
    ClearAccountExhausted,
    CreateAccount,
    Credentials,
    DeleteAccount,
    MarkAccountExhausted,
    RevealAccountCredentials,
    SetAccountCredentials,
    UpdateAccount,
)
from handlers.agents._accounts import ends_later, recovered, take_next
from handlers.agents._references import let_go
from persistence.agents import credentials as _credentials
from persistence.agents import references as _references


@decider
def create_account(command: CreateAccount, *, new_id: UUID, now: datetime) -> Decision[Account]:
    account = Account.first(
        id=new_id,
        now=now,
        email=command.email,
        provider=command.provider,
        config=command.config,
        has_credentials=False,
        is_exhausted=False,
        exhausted_until=None,
        last_used_at=None,
        sort_order=command.sort_order,
    )

    return Decision(account, AccountCreated(account=account))


@decider
def update_account(command: UpdateAccount, account: Account, *, now: datetime) -> Decision[Account]:
    account.expect(command.expected_version)
    if not (changed := changes(command, account)):
        return Decision.unchanged(account)

    updated = account.evolve(now, **changed)

    return Decision(updated, AccountUpdated(account=updated))


@handler
async def delete_account(
    command: DeleteAccount, *, db: AsyncConnection, emit: Emit, now: datetime
) -> AccountDeletion:
    account = await lock_for_deletion(db, Account, command.id)
    users = await _references.to_account(db, account.id)

    await remove(db, account)

    emit(AccountDeleted(account=account.evolve(now)))
    await let_go({"account_id": users}, db=db, emit=emit, now=now)

    return AccountDeletion(id=account.id)


@handler
async def acquire_account(
    command: AcquireAccount, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Account:
    return await take_next(db, emit, command.provider, now=now)


@decider
def mark_account_exhausted(
    command: MarkAccountExhausted, account: Account, *, now: datetime
) -> Decision[Account]:
    if account.is_exhausted and not ends_later(command.until, account.exhausted_until):
        return Decision.unchanged(account)

    exhausted = account.evolve(now, is_exhausted=True, exhausted_until=command.until)

    return Decision(exhausted, AccountExhausted(account=exhausted))


@decider
def clear_account_exhausted(
    command: ClearAccountExhausted,  # noqa: ARG001  the id has been used to find it
    account: Account,
    *,
    now: datetime,
) -> Decision[Account]:
    if not account.is_exhausted:
        return Decision.unchanged(account)

    return recovered(account, now)


@handler
async def set_account_credentials(
    command: SetAccountCredentials, *, db: AsyncConnection, emit: Emit, now: datetime, keys: KeyRing
) -> Account:
    account = await _entities.get_locked(db, Account, command.id)
    if command.credentials is None:
        await _credentials.forget(db, account.id)
    else:
        await _credentials.keep(db, keys, account.id, command.credentials)

    changed = account.evolve(now, has_credentials=command.credentials is not None)
    await _entities.save(db, [changed])

    emit(AccountCredentialsChanged(account=changed))

    return changed


@handler
async def reveal_account_credentials(
    command: RevealAccountCredentials, *, db: AsyncConnection, keys: KeyRing, audit: Audit
) -> Credentials:
    account = await _entities.get(db, Account, command.id)
    found = await _credentials.find(db, keys, account.id)
    if found is None:
        raise CredentialsNotSet(id=account.id)

    audit("credentials.revealed", entity=account)

    return Credentials(id=account.id, credentials=found)
