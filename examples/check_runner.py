"""Asks every endpoint that is due over HTTP and records the run: ``python check_runner.py URL``."""  # noqa: INP001  a script, not a package

import asyncio
import json
import sys
from http.client import HTTPException
from urllib.request import Request, urlopen

from contracts.health.test_definitions import TestDefinition, TestDefinitionDue
from contracts.health.test_runs import RecordTestRun
from fleetbus.client import connect
from fleetbus.client.storable import text


def ask(test: TestDefinition) -> dict[str, int | str]:
    body = None if test.payload is None else json.dumps(test.payload).encode()
    try:
        asked = Request(test.endpoint or "", body, method=test.method)  # noqa: S310  the people who define tests are trusted
        with urlopen(asked, timeout=test.timeout_seconds) as answer:  # noqa: S310  as above
            return {"status_code": answer.status}
    except (OSError, ValueError, HTTPException) as problem:
        return {"status_code": getattr(problem, "code", 0), "error": text(problem, 2_000)}


async def main(nats_url: str) -> None:
    async with connect(nats_url) as bus:
        async for due in bus.events(TestDefinitionDue, durable="check-runner"):
            test = due.test_definition
            result = await asyncio.to_thread(ask, test)
            status = "success" if result["status_code"] == test.expected_status else "failure"
            run = {"test_definition_id": test.id, "status": status, "result": result}
            record = RecordTestRun.model_validate({**run, "triggered_by": "cron"})
            await bus.call(record, key=f"{test.id} due {due.due_at}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
