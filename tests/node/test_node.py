"""A worker in Node.js, and documents that Node's packages have the schemas of."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bus.contract import asyncapi as _asyncapi
from bus.running.registry import Registry
from fleetbus.server.service import Service

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
TASK = "01990000-0000-7000-8000-000000000001"

Json = dict[str, Any]

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not MODULES.exists(), reason="npm install --no-package-lock was not run in tests/node"
    ),
]


async def node(program: str, *arguments: str) -> Json:
    process = await asyncio.create_subprocess_exec(
        "node", HERE / program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode == 0
    printed: Json = json.loads(output)
    return printed


class TestDiscovery:
    async def test_node_finds_and_calls_the_service(self, service: Service, nats_url: str) -> None:
        seen = await node("discover.mjs", nats_url, TASK)

        contexts = [context.name for context in service.registry.catalogue.contexts]
        assert [ping["name"] for ping in seen["pings"]] == contexts
        assert {ping["type"] for ping in seen["pings"]} == {"io.nats.micro.v1.ping_response"}
        [info] = seen["info"]
        assert info["name"] == "planning"
        assert seen["got"]["code"] == "404"
        assert seen["got"]["error"] == f"task {TASK} does not exist"
        assert seen["got"]["body"]["type"] == "task_not_found"
        assert seen["mistyped"]["code"] == "400"
        [stats] = seen["stats"]
        assert stats["id"] == info["id"]
        [figures] = [e for e in stats["endpoints"] if e["name"] == "tasks_get"]
        assert (figures["num_requests"], figures["num_errors"]) == (2, 2)
        assert figures["data"]["errors_by_type"] == {"task_not_found": 1, "invalid_request": 1}


class TestAsyncApi:
    def test_document_is_valid_by_the_official_schema(self, registry: Registry) -> None:
        path = MODULES / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
        if not path.exists():
            pytest.skip("the npm package @asyncapi/specs is not installed")
        validator = jsonschema.Draft7Validator(json.loads(path.read_text()))
        document = _asyncapi.document(registry.catalogue, "1.0.0")

        validator.validate(document)
        for context in registry.catalogue.contexts:
            validator.validate(_asyncapi.document(registry.catalogue, "1.0.0", context.name))

        document["operations"]["db.tasks.get"]["action"] = "answer"
        assert not validator.is_valid(document)
