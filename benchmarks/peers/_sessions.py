"""The sessions of the peers with an ORM, and the outbox as a mapped class."""

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.peers._serving import DATABASE_URL, POOL
from bus.storage.own.tables import outbox
from bus.storage.tables import Row

URL = DATABASE_URL.replace("postgresql:", "postgresql+asyncpg:")


class OutboxRow(Row):
    __table__ = outbox


engine = create_async_engine(URL, pool_size=POOL, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
