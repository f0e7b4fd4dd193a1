"""What a data directory is filled with: something of every kind, in most of its states."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.fleetbus.upgrades.speaking import Answer, Speaker

LEAP_DAY = "0 0 29 2 *"
"""Due so seldom that a kept directory is replaced before."""

LONG_AGO = "2026-01-02"

HOUR = 3600

AHEAD = "2999-01-01T00:00:00Z"

PARSER = "https://git.example.org/acme/parser"

CREDENTIALS = {"token": "kept since the version before", "nested": {"deep": [1, 2.5, None]}}


@dataclass
class Story:
    """Tells commands, each with a key, and keeps what was said and answered."""

    speaker: Speaker
    kept: list[dict[str, Any]] = field(default_factory=list)
    position: int = 0
    told: int = 0

    async def tell(self, subject: str, **fields: Any) -> Any:
        answer, sent = await self._send(subject, fields)
        assert "Nats-Service-Error" not in answer.headers, (subject, answer.text)
        self.position = max(self.position, int(answer.headers.get("Fleet-Position", 0)))
        self.kept.append(sent | {"reply": answer.text})
        return answer.value

    async def tell_in_vain(self, subject: str, **fields: Any) -> None:
        answer, _ = await self._send(subject, fields)
        assert "Nats-Service-Error" in answer.headers, (subject, answer.text)

    async def _send(self, subject: str, fields: dict[str, Any]) -> tuple[Answer, dict[str, str]]:
        body, key = json.dumps(fields), f"scenario-{self.told}"
        self.told += 1
        answer = await self.speaker.send(subject, body, key)
        return answer, {"subject": subject, "body": body, "key": key}


async def play(speaker: Speaker) -> dict[str, Any]:
    """Play all of it; returns what was recorded."""
    story = Story(speaker)
    await _accounts(story)
    agent = await _agents(story)
    named = await _plan(story, agent)
    await _health(story)
    await _documents(story)
    await speaker.ask("db.events.wait", position=story.position, timeout_ms=5000)
    return {
        "kept": story.kept,
        "named": named,
        "credentials": CREDENTIALS,
        "answers": [
            {"subject": subject, "request": request, "reply": await speaker.ask(subject, **request)}
            for subject, request in _questions(named)
        ],
        "stream": await speaker.stream(),
    }


async def _accounts(story: Story) -> None:
    one = await story.tell(
        "db.accounts.create", email="fleet@example.com", config={"plan": "large"}, sort_order=1
    )
    await story.tell("db.accounts.set_credentials", id=one["id"], credentials=CREDENTIALS)
    two = await story.tell("db.accounts.create", email="second@example.com", provider="other")
    await story.tell("db.accounts.mark_exhausted", id=two["id"], until=AHEAD)


async def _agents(story: Story) -> Any:
    account = await story.tell("db.accounts.acquire")
    agent = await story.tell(
        "db.agents.register",
        name="brave-otter",
        account_id=account["id"],
        prompt="Do what is next.",
        heartbeat_interval_s=HOUR,
    )
    await story.tell(
        "db.agents.heartbeat", id=agent["id"], incarnation=1, progress={"step": "tests"}
    )
    gone = await story.tell("db.agents.register", name="calm-heron", heartbeat_interval_s=HOUR)
    await story.tell("db.agents.stop", id=gone["id"], reason="user_requested", exit_code=0)
    task = await story.tell("db.tasks.create", name="Decide", category="plan")
    fields = {"task_id": task["id"], "heartbeat_interval_s": HOUR}
    asking = await story.tell("db.agents.register", name="wise-lynx", **fields)
    await story.tell("db.agents.ask", id=asking["id"], questions=[{"question": "Which database?"}])
    for number in (1, 2):
        items = [{"content": f"line {line} of session {number}\n"} for line in range(3)]
        said = {"agent_id": agent["id"], "session_number": number, "items": items}
        await story.tell("db.log_chunks.append_many", **said)
    await story.tell("db.log_chunks.append", agent_id=gone["id"], content="the only line ✓\n")
    return agent


async def _plan(story: Story, agent: Any) -> dict[str, Any]:
    tell = story.tell
    project = await tell("db.projects.create", name="parser", url="https://git.example.org/parser")
    await tell("db.projects.record_fetch", id=project["id"], fetched_at="2026-01-02T03:04:05Z")
    ahead = await tell("db.projects.create", name="ahead", url="https://git.example.org/ahead")
    await tell("db.projects.record_fetch", id=ahead["id"], fetched_at=AHEAD)
    old = await tell("db.projects.create", name="old", url="https://git.example.org/old")
    await tell("db.projects.archive", id=old["id"])

    about = {"project_ids": [project["id"], ahead["id"]], "branch": "faster"}
    initiative = (await tell("db.initiatives.create", name="Faster search", **about))["id"]
    put_away = (await tell("db.initiatives.create", name="Put away"))["id"]
    await tell("db.tasks.create", name="Nobody takes it", initiative_id=put_away)
    await tell("db.initiatives.archive", id=put_away)

    begun = await tell("db.phases.create", initiative_id=initiative, name="Begun")
    await tell("db.phases.approve", id=begun["id"])
    await tell("db.phases.start", id=begun["id"])
    later = await tell("db.phases.create", initiative_id=initiative, name="Later")
    await tell("db.phases.add_dependency", id=later["id"], depends_on_phase_id=begun["id"])
    await tell("db.phases.approve", id=later["id"])
    stuck = await tell("db.phases.create", initiative_id=initiative, name="Stuck")
    await tell("db.phases.block", id=stuck["id"], reason="Nobody knows how.")
    await tell("db.tasks.create", name="Not yet", phase_id=later["id"], external_ref="plan-7")

    named = {"initiative": initiative, "project": ahead["id"], "agent": agent["id"]}
    return named | await _tasks(story, agent, begun["id"])


async def _tasks(story: Story, agent: Any, phase: str) -> dict[str, Any]:
    tell = story.tell
    items: list[dict[str, Any]] = [
        {"ref": "schema", "name": "Write the migration", "priority": "high"},
        {"ref": "code", "name": "Use the new column", "depends_on": ["schema"]},
        {"ref": "child", "name": "A part of it", "parent": "code"},
        {"ref": "docs", "name": "Tell of it", "category": "research"},
        {"ref": "last", "name": "Remove the old one", "depends_on": ["code"], "priority": "low"},
    ]
    for item in items:
        item["phase_id"] = phase
    made = await tell("db.tasks.create_many", items=items)
    ids = {task["ref"]: task["id"] for task in made["items"]}
    claim = {"phase_id": phase, "lease_seconds": HOUR}
    [first] = (await tell("db.tasks.claim", agent_id="somebody", **claim))["tasks"]
    assert first["task"]["id"] == ids["schema"]
    await tell("db.tasks.release", id=ids["schema"], attempt=1, reason="out of context")
    await tell("db.tasks.claim", agent_id="somebody else", **claim)
    late = {"summary": "too late", "result": {"commit": "0a1b2c"}}
    await story.tell_in_vain("db.tasks.complete", id=ids["schema"], attempt=1, **late)
    done = {"summary": "Added the column.", "result": {"rows": 12, "share": 0.25}}
    await tell("db.tasks.complete", id=ids["schema"], attempt=2, **done)
    await tell("db.tasks.block", id=ids["docs"], reason="The words are missing.")
    [held] = (await tell("db.tasks.claim", agent_id=agent["id"], **claim))["tasks"]
    loose = await tell("db.tasks.create", name="Of no plan", category="discuss")
    fields = {"agent_id": "human", "categories": ["discuss"], "lease_seconds": 300}
    await tell("db.tasks.claim", **fields)
    return {"held": held["task"]["id"], "loose": loose["id"], "done": ids["schema"], **ids}


async def _health(story: Story) -> None:
    tell = story.tell
    page = {"description": "The homepage answers", "endpoint": "https://example.org/"}
    await tell("db.test_definitions.upsert", id="homepage", schedule=LEAP_DAY, **page)
    await tell("db.test_definitions.upsert", id="search", description="It finds", category="unit")
    test = {"test_definition_id": "homepage"}
    run = await tell("db.test_runs.start", **test, environment="staging")
    await tell("db.test_runs.finish", id=run["id"], status="failure", error_message="a 500")
    past = {"completed_at": "2026-01-02T10:00:00Z", "duration_ms": 1200, "metrics": {"bytes": 7}}
    await tell("db.test_runs.record", **test, status="success", **past)
    session = "0199c0de-0000-7000-8000-0000000000aa"
    both = [
        {"test_definition_id": name, "status": "success", "ordinal": number}
        for number, name in enumerate(("homepage", "search"))
    ]
    await tell("db.test_runs.record_many", session_id=session, items=both)
    costs = {"model": "small-1", "provider": "example", "tokens": 512, "cost_usd": "0.0015"}
    await tell("db.model_calls.record", **costs, success=True, latency_ms=840, prompt="Why?")
    await tell("db.daily_summaries.compute", day=LONG_AGO)
    said = {"overall_status": "degraded", "total": 3, "passed": 2, "failed": 1, "issues": ["slow"]}
    await tell("db.daily_summaries.upsert", day="2026-01-01", **said)

    await tell("db.schedules.upsert", name="rare", cron=LEAP_DAY)
    await tell("db.schedules.upsert", name="off", cron="* * * * *", enabled=False)
    workers = [{"name": f"worker-{number}", "type": "builder"} for number in (1, 2)]
    whole = {"trigger_type": "on_demand", "workers": workers}
    for reported in (2, 1, 0):
        check = await tell("db.checks.start", **whole)
        for worker in check["workers"][:reported]:
            report = {"overall_status": "healthy", "score": 0.98, "warnings": ["old"]}
            await tell("db.checks.report", worker_check_id=worker["id"], **report)
    await tell("db.checks.cancel", id=check["check"]["id"])


async def _documents(story: Story) -> None:
    for content, sources in (("# Parser\n", ["src/parser.py"]), ("# Other – ünïcode\n", None)):
        fields = {"repo_url": PARSER, "sources": sources or []}
        await story.tell("db.generations.record", content=content, **fields)


def _questions(named: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Queries whose answers rest on nothing but what is stored."""
    nouns = (
        *("projects", "initiatives", "phases", "tasks", "accounts", "agents", "generations"),
        *("checks", "daily_summaries", "model_calls", "schedules", "test_definitions"),
        *("test_runs", "events"),
    )
    agent, initiative = named["agent"], named["initiative"]
    return [
        *((f"db.{noun}.list", {"limit": 200}) for noun in nouns),
        ("db.projects.list", {"archived": True}),
        ("db.tasks.list", {"claimed_by": agent}),
        ("db.tasks.context", {"id": named["code"]}),
        ("db.tasks.dependents", {"id": named["code"]}),
        ("db.tasks.queue", {"initiative_id": initiative}),
        ("db.initiatives.overview", {"id": initiative}),
        ("db.phases.dispatchable", {"initiative_id": initiative}),
        ("db.agents.prompt", {"id": agent}),
        ("db.agents.find", {"task_id": named["held"]}),
        ("db.log_chunks.list", {"agent_id": agent}),
        ("db.checks.latest_for_worker", {"worker_name": "worker-1"}),
        ("db.model_calls.usage", {"days": 365}),
        ("db.events.timeline", {"entity": named["done"]}),
    ]
