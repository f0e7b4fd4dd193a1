"""An agent that comes back after an outage, as its own next incarnation."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar

from bus.contract.errors import InvalidTransition
from fleetbus.client.errors import AgentLost

if TYPE_CHECKING:
    from fleetbus.client.agent import WorkingAgent

T = TypeVar("T")

log = logging.getLogger("fleetbus.worker")


async def work_again(
    come_in: Callable[[], AbstractAsyncContextManager[WorkingAgent]],
    work: Callable[[WorkingAgent], Awaitable[T]],
) -> T:
    """Work as an agent until the work is done; come back if it was considered crashed meanwhile."""
    results: list[T] = []
    while not results:
        try:
            async with come_in() as agent:
                results.append(await work(agent))
        except AgentLost as lost:
            if not was_held_for_crashed(lost):
                raise
            log.warning("agent %s was considered crashed", lost.agent_id)
    return results[0]


def was_held_for_crashed(lost: AgentLost) -> bool:
    """Whether nobody wanted the agent to end: it was not stopped, deleted or started elsewhere."""
    why = lost.__cause__
    return isinstance(why, InvalidTransition) and why.from_ == "crashed"
