"""Settings: environment variables (``FLEETBUS_…``, ``DATABASE_URL``, ``NATS_URL``), then flags."""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import Annotated

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleetbus.bus.dispatcher import Limits
from fleetbus.bus.executor import ExecutorSettings
from fleetbus.database import PoolSettings

VERSION = _version("fleetbus")

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
DEFAULT_DATABASE_URL = "postgresql://fleetbus@127.0.0.1:5432/fleetbus"

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What a handler process can be told; each field is ``FLEETBUS_<NAME>`` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="FLEETBUS_",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    database_url: str = Field(
        DEFAULT_DATABASE_URL,
        validation_alias=AliasChoices("DATABASE_URL", "FLEETBUS_DATABASE_URL"),
    )
    """Postgres, ``postgresql://user:password@host:port/database``."""
    nats_url: str = Field(
        DEFAULT_NATS_URL, validation_alias=AliasChoices("NATS_URL", "FLEETBUS_NATS_URL")
    )
    """NATS, one URL or several with commas."""
    source: str = "fleetbus"
    """``ce-source`` of every event."""
    stream: str = "EVENTS"
    """The JetStream stream of the events."""
    stream_replicas: Positive = 1
    """Replicas of the stream when it is created."""
    max_in_flight: Positive = 1024
    """Requests in work at once in a process; beyond it 429."""
    max_in_flight_per_operation: Positive = 512
    """Requests of one operation in work at once in a process; beyond it 429."""
    batch_limit: Positive = 256
    """Commands that share a transaction, at most."""
    concurrent_batches: Positive = 2
    """Batches of one operation in the database at once."""
    pool_write: Positive = 8
    """Connections for commands."""
    pool_read: Positive = 4
    """Connections for queries; Postgres refuses writes on them."""
    request_timeout: Seconds = 30.0
    """Seconds for a request without ``Fleet-Deadline``."""
    idempotency_retention: Seconds = 24 * 3600.0
    """Seconds that the reply of an idempotency key is kept."""
    outbox_retention_days: Annotated[float, Field(gt=0)] = 7.0
    """Days that published events are kept in the outbox, at least."""
    history_retention_days: Annotated[float, Field(gt=0)] = 90.0
    """Days that test runs and calls to models are kept."""
    relay: bool = True
    """Whether this process stands by as relay."""
    sweeper: bool = True
    """Whether this process does periodic work."""
    sweep_interval: Seconds = 1.0
    """What the intervals of periodic work are multiplied by; leases are looked at each second."""
    stop_timeout: Seconds = 20.0
    """Seconds that a stopping process waits for what is in flight."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @property
    def nats_servers(self) -> list[str]:
        """The NATS URLs, one each."""
        return [url.strip() for url in self.nats_url.split(",") if url.strip()]

    @property
    def pools(self) -> PoolSettings:
        """The sizes of the connection pools."""
        return PoolSettings(self.pool_write, self.pool_read, self.request_timeout)

    @property
    def limits(self) -> Limits:
        """The limits of the dispatcher."""
        return Limits(
            in_flight=self.max_in_flight,
            per_operation=self.max_in_flight_per_operation,
            batch=self.batch_limit,
            concurrent_batches=self.concurrent_batches,
        )

    def executor(self, max_payload: int) -> ExecutorSettings:
        """The settings of the executor, for a server that takes messages of this size."""
        return ExecutorSettings(timeout=self.request_timeout, max_payload=max_payload)
