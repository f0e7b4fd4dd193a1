"""An agent that is there to be killed: ``python -m benchmarks.victim <NATS URL> <agent id>``.

It uses plain nats-py, so that many of them start soon.
"""

import asyncio
import json
import sys

import nats


async def main(url: str, agent: str) -> None:
    """Register, claim a task, say so, and go on until killed."""
    client = await nats.connect(url, name=agent)
    registered = {"id": agent, "heartbeat_interval_s": 60}
    for subject, request in (
        ("db.agents.register", registered),
        ("db.tasks.claim", {"agent_id": agent}),
    ):
        reply = await client.request(subject, json.dumps(request).encode(), timeout=30)
        assert "Nats-Service-Error-Code" not in (reply.headers or {}), reply.data
    print("working", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
