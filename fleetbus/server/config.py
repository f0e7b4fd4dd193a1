"""Settings: environment variables (``FLEETBUS_…``, ``DATABASE_URL``, ``NATS_URL``), then flags."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version as _version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus.running.admission import MEBIBYTE, Limits
from bus.running.executor_settings import ExecutorSettings
from bus.storage.database import PoolSettings
from fleetbus.client.connection.answering import checked_prefix
from fleetbus.client.connection.client import inbox_prefix_or_default
from fleetbus.server.detector.settings import DetectorSettings, SystemAccount
from fleetbus.server.relay.limits import Limits as StreamLimits
from fleetbus.server.relay.stream import StreamSettings

VERSION = _version("fleetbus")

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
DEFAULT_DATABASE_URL = "postgresql://fleetbus@127.0.0.1:5432/fleetbus"

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=10 * 366 * 86_400)]
Timeout = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[float, Field(gt=0, le=36_525)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda level: level.upper() if isinstance(level, str) else level),
]


class Settings(BaseSettings):
    """The settings of a handler process; each field is ``FLEETBUS_<NAME>`` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="FLEETBUS_",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    database_url: str = Field(
        DEFAULT_DATABASE_URL,
        validation_alias=AliasChoices("DATABASE_URL", "FLEETBUS_DATABASE_URL"),
    )
    """Postgres, ``postgresql://user:password@host:port/database``."""
    database_pooler_url: str | None = Field(None, repr=False)
    """The same database through a pooler in transaction mode (PgBouncer); commands and queries go
    through it, and work that needs a session of its own connects directly."""
    nats_url: str = Field(
        DEFAULT_NATS_URL, validation_alias=AliasChoices("NATS_URL", "FLEETBUS_NATS_URL")
    )
    """NATS, one URL or several separated by commas."""
    nats_system_url: str | None = Field(None, repr=False)
    """The same servers as a user of NATS's system account, ``nats://user:password@host:port``;
    with it a crash is noticed by the lost connection."""
    nats_system_credentials: str | None = None
    """A file with the credentials of that user, if they are not in the URL."""
    inbox_prefix: str = "_INBOX"
    """The prefix of our own inboxes, if the NATS user may subscribe to no others; clients and the
    command line read it too."""
    reply_prefixes: str = ""
    """Prefixes of reply subjects allowed besides ``_INBOX``, ``_R_`` and ``_GR_``, separated by
    commas; a request with any other reply subject is not executed."""
    source: str = "fleetbus"
    """``ce-source`` of every event."""
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")] = "EVENTS"
    """The JetStream stream that the events are kept in."""
    stream_replicas: Positive = 1
    """Replicas of the stream when it is created."""
    stream_max_age_days: Annotated[float, Field(ge=0, le=36_525)] | None = None
    """Days that the stream keeps events, 0 for ever; if not set, its limit is left as it is."""
    stream_max_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes that the stream may hold, 0 for no limit; beyond it the oldest events are dropped. If
    not set, its limit is left as it is. ``fleetbus up`` limits a stream that it creates to 8
    GiB."""
    max_in_flight: Positive = 1024
    """Commands in progress at once in a process; beyond it 429. As with all of these limits, a
    third more is for callers that have little in progress. Vital commands are not counted."""
    max_queries_in_flight: Positive = 1024
    """Queries in progress at once in a process; beyond it 429."""
    max_vital_in_flight: Positive = 8192
    """Heartbeats and other vital commands in progress at once in a process; beyond it 429."""
    max_in_flight_per_operation: Positive = 512
    """Requests for one operation in progress at once in a process; beyond it 429."""
    max_in_flight_per_caller: Positive | None = None
    """Commands, queries and vital requests (each) of one connection in progress at once in a
    process, as soon as there is another connection; if not set, a quarter of each limit."""
    max_bytes_in_flight: Annotated[int, Field(ge=4 * MEBIBYTE)] = 64 * MEBIBYTE
    """Bytes of requests, and of answers not yet written to the socket, at once in a process; three
    eighths each for commands and queries, a quarter for vital ones; beyond it 429."""
    batch_limit: Positive = 256
    """Commands that may share a transaction, at most."""
    concurrent_batches: Positive = 2
    """Batches of one operation that may be in the database at once."""
    pool_write: Positive = 8
    """Connections for commands; vital ones may take one more."""
    pool_read: Positive = 4
    """Connections for queries; Postgres refuses writes on them. The detector may take one more."""
    pool_expensive: Positive = 2
    """Connections for searches, counts and dashboards; other queries do not wait for them."""
    max_expensive_in_flight: Positive = 32
    """Searches, counts and dashboards in progress or waiting in a process; beyond it 429."""
    expensive_timeout: Timeout = 10.0
    """Seconds that a statement of a search, a count or a dashboard may take; beyond it 422."""
    hashing: Positive = 2
    """Threads that hash passwords and do other slow work of the processor; what waits too long for
    one is refused with 429."""
    request_timeout: Timeout = 30.0
    """Seconds for a request without ``Fleet-Deadline``."""
    idempotency_retention: Seconds = 24 * 3600.0
    """Seconds that the reply of an idempotency key is kept."""
    outbox_retention_days: Days = 7.0
    """Days that published events are kept in the outbox, at least."""
    history_retention_days: Days = 90.0
    """Days that test runs and calls to models are kept."""
    log_retention_days: Days = 30.0
    """Days that log chunks are kept."""
    audit_retention_days: Days = 90.0
    """Days that records are kept of what no event tells, such as who revealed credentials."""
    credentials_keys: str = Field("", repr=False)
    """Keys for the credentials of accounts, each ``id:base64`` of 32 bytes, separated by commas;
    the first one encrypts, all of them decrypt."""
    credentials_key_file: Path | None = None
    """The same in a file that only its owner may read, one key on each line."""
    stall_after: Seconds | None = None
    """Seconds without progress after which a running agent counts as stalled; if not set, never."""
    relay: bool = True
    """Whether this process may act as the relay."""
    sweeper: bool = True
    """Whether this process does periodic work."""
    detector: bool = True
    """Whether this process listens for lost connections, given ``FLEETBUS_NATS_SYSTEM_URL``."""
    suspicion_grace: Seconds = 2.0
    """Seconds that an agent may be away after a lost connection before it counts as crashed."""
    reconnect_time: Seconds = 5.0
    """Seconds that clients may need to come back after a NATS server was away; until these and the
    grace period are over, no agent counts as crashed because of a lost connection."""
    sweep_interval: Seconds = 1.0
    """A factor for the intervals of periodic work; at 1, leases are checked every second."""
    stop_timeout: Timeout = 20.0
    """Seconds that a stopping process waits for requests in flight."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Port for metrics and health over HTTP; 0 takes a free one. If not set, there is none."""
    http_host: str = "127.0.0.1"
    """Address that the HTTP port is bound to."""
    strict: bool = False
    """Whether an event that its operation, reaction or job does not declare, or a decision that
    contradicts itself, fails the transaction, as in tests; otherwise it is logged and counted."""
    log_level: LogLevel = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @property
    def nats_servers(self) -> list[str]:
        """The NATS URLs, one each."""
        return _urls(self.nats_url)

    @property
    def events_stream(self) -> StreamSettings:
        """How the stream is made, and what it is given if it is there."""
        limits = StreamLimits(self.stream_max_age_days, self.stream_max_bytes)
        return StreamSettings(self.stream, self.stream_replicas, limits=limits)

    @property
    def watched(self) -> DetectorSettings | None:
        """How this process listens for lost connections, None where it does not."""
        if not self.detector or not self.nats_system_url:
            return None
        account = SystemAccount(_urls(self.nats_system_url), self.nats_system_credentials)
        return DetectorSettings(account, self.suspicion_grace, self.reconnect_time)

    @property
    def pools(self) -> PoolSettings:
        """The sizes of the connection pools."""
        return PoolSettings(
            self.pool_write,
            self.pool_read,
            self.request_timeout,
            self.pool_expensive,
            self.expensive_timeout,
        )

    @property
    def limits(self) -> Limits:
        """The limits of the dispatcher."""
        return Limits(
            in_flight=self.max_in_flight,
            per_operation=self.max_in_flight_per_operation,
            vital=self.max_vital_in_flight,
            queries=self.max_queries_in_flight,
            per_caller=self.max_in_flight_per_caller,
            bytes=self.max_bytes_in_flight,
            batch=self.batch_limit,
            concurrent_batches=self.concurrent_batches,
        )

    @property
    def provided(self) -> dict[str, timedelta | None]:
        """The settings that handlers, reactions and jobs may ask for, by name."""
        stall_after = self.stall_after
        return {
            "history_retention": timedelta(days=self.history_retention_days),
            "stall_after": None if stall_after is None else timedelta(seconds=stall_after),
        }

    def executor(self) -> ExecutorSettings:
        """The settings of the executor."""
        return ExecutorSettings(
            timeout=self.request_timeout,
            expensive_in_flight=self.max_expensive_in_flight,
            hashing=self.hashing,
        )

    @property
    def added_reply_prefixes(self) -> list[str]:
        """Where answers may go beside inboxes, a prefix each."""
        return [checked_prefix(prefix) for prefix in _urls(self.reply_prefixes)]

    @field_validator("reply_prefixes")
    @classmethod
    def _check_reply_prefixes(cls, prefixes: str) -> str:
        for prefix in _urls(prefixes):
            checked_prefix(prefix)
        return prefixes

    @field_validator("inbox_prefix")
    @classmethod
    def _check_inbox_prefix(cls, prefix: str) -> str:
        return inbox_prefix_or_default(prefix)


def _urls(text: str) -> list[str]:
    return [url.strip() for url in text.split(",") if url.strip()]
