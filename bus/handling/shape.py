"""What the shapes of handler differ in: one frozen object each, and whoever runs them asks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.refusals import Refusal
from bus.contract.several import GivenCommand
from bus.handling.auditing import Audit
from bus.handling.decisions import Decision, Emit, Kept
from bus.handling.signatures import union

SPECIAL: Final[dict[str, Any]] = {
    "audit": Audit,
    "audits": Sequence[Audit],
    "db": AsyncConnection,
    "emit": Emit,
    "emits": Sequence[Emit],
    "now": datetime,
    "new_id": UUID,
    "limit": int,
    "room": int,
    "served_at": datetime,
}
"""The dependencies that have a name of their own, and how they are annotated."""

Returns = Callable[[Any, type[Any]], str]
"""What is wrong with what a function returns, given the reply that is declared; empty if nothing.
"""


@dataclass(frozen=True, eq=False)
class Shape:
    """A kind of function: what it handles, how it is written and what it may ask for."""

    name: str
    handles: Literal["query", "command", "events", "time"]
    """What it is run for: an operation of this kind, events, or because its time has come."""
    written: str
    """How it is written, for whoever wrote it otherwise."""
    asynchronous: bool
    special: frozenset[str] = frozenset()
    """Which of the ``SPECIAL`` dependencies it may ask for."""
    settings: bool = False
    """Whether it may ask for settings."""
    gateways: bool = False
    """Whether it may ask for what else the process has, such as the key ring."""
    several: bool = False
    """Whether its first parameter is a sequence: of commands, or of events."""
    batched: bool = False
    """Whether calls of its operation are gathered."""
    entities: Literal["none", "the one", "any"] = "none"
    """Which entities it is handed: the one that the query names, and what it leads to, or any."""
    prepared: bool = False
    """Whether it may take what was prepared before the transaction."""
    returns: Returns = lambda _, __: ""

    @property
    def decides(self) -> bool:
        """Whether it decides on entities that are read, locked and written for it."""
        return self.entities == "any"

    @property
    def emits(self) -> bool:
        """Whether it emits itself, rather than return events."""
        return bool(self.special & {"emit", "emits"})

    def __str__(self) -> str:
        """Its name."""
        return self.name


def _the_reply(returns: Any, reply: type[Any]) -> str:
    return "" if returns == reply else f"it returns {reply.__name__}, as declared"


def _the_reply_unless_kept(returns: Any, reply: type[Any]) -> str:
    return _the_reply(returns, reply) if _said(returns) != {reply} else ""


def _said(returns: Any) -> set[Any]:
    """What a handler answers, beside a refusal of which something is kept."""
    return {*union(returns)} - {Kept}


def keeps(returns: Any) -> bool:
    """Whether a function may refuse and keep something."""
    said = get_args(returns)[0] if get_origin(returns) is list else returns
    return get_origin(returns) is Decision or Kept in union(said)


def _a_decision(returns: Any, _: type[Any]) -> str:
    return "" if get_origin(returns) is Decision else "a decider returns Decision[Entity]"


def _the_replies(returns: Any, reply: type[Any]) -> str:
    right = get_origin(returns) is list and _said(get_args(returns)[0]) == {reply, Refusal}
    return "" if right else f"of a sequence it returns list[{reply.__name__} | Refusal]"


def _commands(returns: Any, _: type[Any]) -> str:
    right = returns == list[GivenCommand]
    return "" if right else "it returns list[GivenCommand], the commands in order"


def _how_many(returns: Any, _: type[Any]) -> str:
    return "" if returns is int else "a job is async and returns how much it handled, an int"


QUERY: Final = Shape(
    "query",
    "query",
    "async",
    asynchronous=True,
    special=frozenset({"db", "now", "room"}),
    settings=True,
    gateways=True,
    returns=_the_reply,
)

LOOKUP: Final = Shape(
    "lookup",
    "query",
    "a plain function",
    asynchronous=False,
    special=frozenset({"now"}),
    batched=True,
    entities="the one",
    returns=_the_reply,
)

DECIDER: Final = Shape(
    "decider",
    "command",
    "a plain function, without I/O",
    asynchronous=False,
    special=frozenset({"now", "new_id"}),
    settings=True,
    batched=True,
    entities="any",
    prepared=True,
    returns=_a_decision,
)

HANDLER: Final = Shape(
    "handler",
    "command",
    "async",
    asynchronous=True,
    special=frozenset({"audit", "db", "emit", "now", "new_id"}),
    settings=True,
    gateways=True,
    prepared=True,
    returns=_the_reply_unless_kept,
)

GATHERED: Final = Shape(
    "gathered handler",
    "command",
    "async",
    asynchronous=True,
    special=frozenset({"audits", "db", "emits", "now", "room"}),
    settings=True,
    gateways=True,
    several=True,
    batched=True,
    prepared=True,
    returns=_the_replies,
)

TOGETHER: Final = Shape(
    "together", "command", "a plain function", asynchronous=False, returns=_commands
)

PREPARATION: Final = Shape(
    "preparation",
    "command",
    "async",
    asynchronous=True,
    special=frozenset({"db", "now"}),
    settings=True,
    gateways=True,
)

REACTION: Final = Shape(
    "reaction",
    "events",
    "async",
    asynchronous=True,
    special=frozenset({"db", "emit", "now"}),
    settings=True,
    gateways=True,
    several=True,
)

JOB: Final = Shape(
    "job",
    "time",
    "async and returns how much it handled, an int",
    asynchronous=True,
    special=frozenset({"db", "emit", "now", "limit", "served_at"}),
    settings=True,
    gateways=True,
    returns=_how_many,
)
