"""Whoever knows or guesses the keys of the detector can do nothing with them."""

import json
from typing import Any

from contracts.agents.agents import AgentCrashed, AgentSuspected, SuspectAgent
from fleetbus.client import Bus
from tests.fleetbus.detector.working import History, living

GUESSED = 20
"""Connections of which somebody takes the keys, before they are lost."""

HEADERS = ("Fleet-Caller", "caller", "Fleet-Actor", "Nats-Request-Info")


async def take(bus: Bus, verb: str, key: str, body: dict[str, Any]) -> int:
    """Use a key for something else, as whom the headers can say; returns the status."""
    headers = {"Nats-Msg-Id": key, **dict.fromkeys(HEADERS, "detector")}
    request = json.dumps(body).encode()
    answer = await bus.nats.request(f"db.agents.{verb}", request, 10, headers=headers)
    return int((answer.headers or {}).get("Nats-Service-Error-Code", "200"))


def key_of(verb: str, connection: Bus, ahead: int = 0) -> str:
    """What the detector tells of a connection with, or of one that comes soon after it."""
    server = connection.nats._server_info["server_id"]
    assert connection.nats.client_id is not None
    return f"db.agents.{verb}:{server}:{connection.nats.client_id + ahead}"


async def test_keys_that_somebody_else_has_used(bus: Bus, nats_url: str, told: History) -> None:
    async with living(nats_url, interval=30) as (agent, own):
        for ahead in range(GUESSED):
            key = key_of("suspect", own, ahead)
            assert await take(bus, "suspect", key, {"connection_name": "x"}) == 200

    await told.when(AgentSuspected, agent)
    [suspected] = told.of(AgentSuspected, agent)
    decision = f"db.agents.confirm_suspicion:{agent}:{suspected.agent.suspected_at.isoformat()}"
    early = {"id": str(agent), "suspected_at": "2020-01-01T00:00:00Z"}
    assert await take(bus, "confirm_suspicion", decision, early) == 200

    await told.when(AgentCrashed, agent)
    assert [crashed.cause for crashed in told.of(AgentCrashed, agent)] == ["disconnected"]


async def test_keys_that_the_detector_has_used_are_free_for_others(
    bus: Bus, nats_url: str, told: History
) -> None:
    async with living(nats_url, interval=30) as (agent, own):
        key = key_of("suspect", own)
    await told.when(AgentCrashed, agent)

    assert (await bus.call(SuspectAgent(connection_name="y"), key=key)).agents == []
