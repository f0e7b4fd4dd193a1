"""What is in the relay's way, and what helps: every refusal is retried, none of them in silence.

Nothing is lost meanwhile: events wait in the outbox, in their order. A single event never is in the
way: its subject and headers are made so that the server takes them, and its body is shortened.
"""

from __future__ import annotations

from typing import Final

from nats.errors import ConnectionClosedError, MaxPayloadError, NoRespondersError
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from sqlalchemy.exc import SQLAlchemyError

from fleetbus.server.relay.events import EventTooLarge
from fleetbus.server.relay.stream import StreamChanged, StreamUnfit

_STORAGE: Final = "make room on the disk of NATS, or raise max_file_store of its JetStream"
_ACCOUNT: Final = "raise the account's JetStream limits, or make room in its other streams"
_LIMITS: Final = (
    "the stream is full and refuses new events: `nats stream edit EVENTS --discard old`, "
    "or raise its limits"
)
_REPLICAS: Final = "the stream has no leader: look at the NATS servers that are to hold it"

# Error codes are those of server/errors.json of nats-server.
_REMEDIES: Final = {
    10002: _ACCOUNT,  # resource limits exceeded for account
    10008: _REPLICAS,  # JetStream system temporarily unavailable
    10009: _REPLICAS,  # JetStream cluster not assigned
    10023: _STORAGE,  # insufficient resources
    10028: _ACCOUNT,  # insufficient memory of the server
    10039: "enable JetStream for the account that NATS_URL names",
    10047: _STORAGE,  # insufficient storage resources available
    10054: "raise max_msg_size of the stream, or remove it; it is tried again in a short form",
    10076: "start nats-server with --jetstream",
    10077: _LIMITS,  # store failed: maximum bytes, messages, messages per subject exceeded
    10109: "the stream is sealed, which cannot be undone: delete it, and it is rebuilt",
    10118: _REPLICAS,  # stream is offline
    10167: _ACCOUNT,
}


_BY_KIND: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (EventTooLarge, "nothing is published until that is done"),
    (StreamUnfit, "fix it with `nats stream edit`; nothing is published until then"),
    (MaxPayloadError, "NATS accepts only smaller messages now; it is tried again with short forms"),
    (NoRespondersError, "start nats-server with --jetstream, or look at the stream's leader"),
    (NotFoundError, "the relay creates the stream again by itself"),
    (ServiceUnavailableError, _REPLICAS),
    (StreamChanged, "the relay compares stream and outbox, and continues by itself"),
    (ConnectionClosedError, "look whether NATS can be reached"),
    (TimeoutError, "look whether NATS can be reached and is not overloaded"),
    (OSError, "look whether Postgres can be reached"),
    (SQLAlchemyError, "look whether Postgres can be reached"),
    (APIError, "see what `nats stream info EVENTS` says"),
)


def remedy(failure: BaseException) -> str:
    """What helps, in words for ``fleetbus doctor``."""
    if isinstance(failure, APIError) and failure.err_code in _REMEDIES:
        return _REMEDIES[failure.err_code]
    kinds = (words for kind, words in _BY_KIND if isinstance(failure, kind))
    return next(kinds, "the log of the active relay says more")
