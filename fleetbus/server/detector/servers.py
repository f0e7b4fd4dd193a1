"""Asks every NATS server of a cluster, over the system account, who is connected."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.contract.fields import one_spelling
from fleetbus.server.detector.advisories import Fact, closed_lately, moment

ASK_TIMEOUT = 2.0
"""Seconds in which every server has to answer."""

PAGE = 1024
"""Connections in one answer."""

OVERLAP = 64
"""Connections that two pages have in common."""

PING = "$SYS.REQ.SERVER.PING"

_OPEN, _CLOSED = 0, 1


class NotTheSystemAccount(Exception):
    """Nobody answers what servers answer to the system account only."""


class Incomplete(Exception):
    """Not every server of the cluster has answered."""


@dataclass(frozen=True)
class Look:
    """Who is connected at this moment, anywhere in the cluster."""

    names: frozenset[str]
    youngest: float
    """Seconds that the server which was started last has been running."""


class Servers:
    """The servers behind a connection to the system account."""

    def __init__(self, client: Client, account: str | None) -> None:
        self._client = client
        self._account = account
        """Whose connections matter; None where it is not known: all."""

    async def look(self) -> Look:
        """Ask all servers. Raises ``Incomplete``, ``NotTheSystemAccount`` or an error of NATS."""
        uptimes = await self.uptimes()
        names: set[str] = set()
        for answer in await self._ask("CONNZ", self._query(_OPEN), len(uptimes)):
            async for connection in self._connections(answer):
                names.add(one_spelling(connection.get("name", "")))
        return Look(frozenset(names), min(uptimes.values()))

    async def closed_lately(self, within: timedelta) -> list[Fact]:
        """The connections that were closed last on any server, of names that none has now."""
        query = self._query(_CLOSED) | {"sort": "stop"}
        facts: list[Fact] = []
        for answer in await self._ask("CONNZ", query, len(await self.uptimes())):
            server, data = answer["server"]["id"], answer["data"]
            closed, now = data["connections"] or [], moment(data["now"])
            facts += closed_lately(server, closed, now=now, within=within)
        if not facts:
            return []
        names = (await self.look()).names
        return [fact for fact in facts if fact.name not in names]

    async def uptimes(self) -> dict[str, float]:
        """How long each server has been running, in seconds, by its id and its own clock."""
        answers = await self._ask("STATSZ", {}, None)
        return {
            answer["server"]["id"]: _seconds(answer["statsz"]["start"], answer["server"]["time"])
            for answer in answers
        }

    def _query(self, state: int) -> dict[str, Any]:
        query: dict[str, Any] = {"limit": PAGE, "offset": 0, "sort": "cid", "state": state}
        return query | ({"acc": self._account, "auth": True} if self._account else {})

    async def _ask(
        self, what: str, query: dict[str, Any], expected: int | None
    ) -> list[dict[str, Any]]:
        """An answer of each server; without a number, of as many as the first says there are."""
        inbox = self._client.new_inbox()
        answers: list[dict[str, Any]] = []
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(f"{PING}.{what}", pydantic_core.to_json(query), reply=inbox)
            end = time.monotonic() + ASK_TIMEOUT
            while expected is None or len(answers) < expected:
                message = await subscription.next_msg(timeout=max(0.001, end - time.monotonic()))
                answers.append(_read(message))
                expected = expected or answers[0]["statsz"].get("active_servers", 1)
        except TimeoutError:
            raise Incomplete(f"{len(answers)} of {expected or 'all'} NATS servers answer") from None
        finally:
            await subscription.unsubscribe()
        return answers

    async def _connections(self, first: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """All open connections of one server, from its first page on; some come twice."""
        subject = f"$SYS.REQ.SERVER.{first['server']['id']}.CONNZ"
        data, offset = first["data"], 0
        while connections := data["connections"] or []:
            for connection in connections:
                yield connection
            offset += len(connections)
            if offset >= data["total"]:
                return
            offset, data = await self._page_after(connections[-1]["cid"], subject, offset)

    async def _page_after(self, last: int, subject: str, offset: int) -> tuple[int, dict[str, Any]]:
        """The page that goes on behind this connection, and where it begins.

        What follows a connection that closes moves up. So pages overlap, and one that does not
        begin before the last known connection is asked for again, from further before.
        """
        offset -= OVERLAP
        while True:
            data = await self._page(subject, offset)
            connections = data["connections"] or []
            if offset == 0 or (connections and connections[0]["cid"] <= last):
                return offset, data
            offset = max(0, offset - PAGE)

    async def _page(self, subject: str, offset: int) -> dict[str, Any]:
        query = self._query(_OPEN) | {"offset": offset}
        message = await self._client.request(
            subject, pydantic_core.to_json(query), timeout=ASK_TIMEOUT
        )
        data: dict[str, Any] = _read(message)["data"]
        return data


def _read(message: Msg) -> dict[str, Any]:
    if (message.headers or {}).get("Status") == "503":
        raise NotTheSystemAccount
    answer: dict[str, Any] = pydantic_core.from_json(message.data)
    if error := answer.get("error"):
        raise Incomplete(f"a NATS server refuses: {error.get('description')}")
    return answer


def _seconds(start: str, end: str) -> float:
    return (moment(end) - moment(start)).total_seconds()
