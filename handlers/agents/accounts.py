"""What happens to accounts."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
from contracts.agents.accounts import (
    Account,
    AccountDeletion,
    AcquireAccount,
    ClearAccountExhausted,
    CreateAccount,
    Credentials,
    DeleteAccount,
    GetAccount,
    ListAccounts,
    MarkAccountExhausted,
    RevealAccountCredentials,
    SetAccountCredentials,
    UpdateAccount,
)
from handlers._shapes import Emit, handler, query
from handlers.agents._accounts import take_next


@handler
async def acquire_account(
    command: AcquireAccount, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Account:
    return await take_next(db, emit, command.provider, now=now)


@handler
async def clear_account_exhausted(
    command: ClearAccountExhausted, *, db: AsyncConnection, emit: Emit
) -> Account:
    raise NotImplementedError


@handler
async def create_account(command: CreateAccount, *, db: AsyncConnection, emit: Emit) -> Account:
    raise NotImplementedError


@handler
async def delete_account(
    command: DeleteAccount, *, db: AsyncConnection, emit: Emit
) -> AccountDeletion:
    raise NotImplementedError


@query
async def get_account(query: GetAccount, *, db: AsyncConnection) -> Account:
    raise NotImplementedError


@query
async def list_accounts(query: ListAccounts, *, db: AsyncConnection) -> Page[Account]:
    raise NotImplementedError


@handler
async def mark_account_exhausted(
    command: MarkAccountExhausted, *, db: AsyncConnection, emit: Emit
) -> Account:
    raise NotImplementedError


@query
async def reveal_account_credentials(
    query: RevealAccountCredentials, *, db: AsyncConnection
) -> Credentials:
    raise NotImplementedError


@handler
async def set_account_credentials(
    command: SetAccountCredentials, *, db: AsyncConnection, emit: Emit
) -> Account:
    raise NotImplementedError


@handler
async def update_account(command: UpdateAccount, *, db: AsyncConnection, emit: Emit) -> Account:
    raise NotImplementedError
