"""``fleetbus import`` and ``fleetbus demo``."""

import json
from pathlib import Path

import pytest

from contracts.planning.initiatives import ArchiveInitiative, FindInitiative
from contracts.planning.tasks import ListTasks
from fleetbus.client import Bus
from tests.fleetbus.cli.program import fleetbus


def record(number: int, *depends_on: str, **fields: str) -> str:
    blocks = [
        {"issue_id": f"bd-{number}", "depends_on_id": ref, "type": "blocks"} for ref in depends_on
    ]
    issue = {"id": f"bd-{number}", "title": f"Task {number}", "status": "open", "priority": 1}
    return json.dumps(issue | {"issue_type": "task", "dependencies": blocks} | fields)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    lines = [
        record(1),
        record(2, "bd-1", "bd-8"),
        record(3, "bd-2", "bd-9"),
        record(4, status="tombstone"),
        "nonsense",
    ]
    file = tmp_path / "issues.jsonl"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def later_plan(tmp_path: Path) -> Path:
    file = tmp_path / "later.jsonl"
    file.write_text(record(5))
    return file


def counts(table: str) -> dict[str, list[int]]:
    rows = [line.rsplit(maxsplit=4) for line in table.splitlines()]
    return {
        what: [int(number) for number in numbers]
        for what, *numbers in (row for row in rows if len(row) == 5)
        if all(number.isdecimal() for number in numbers)
    }


class TestImport:
    async def test_tells_what_went_in_and_what_did_not(
        self, plan: Path, bus: Bus, nats_url: str
    ) -> None:
        ended = await fleetbus("import", "beads", str(plan), "--name", "web", NATS_URL=nats_url)
        assert ended.code == 0
        assert ended.out.startswith("imported into the initiative beads:web (")
        assert counts(ended.out)["tasks"] == [3, 0, 0, 0]
        assert counts(ended.out)["dependencies"] == [2, 0, 0, 0]
        assert "left out: 2\n  blocks: … is not in the plan: bd-2 and 1 more\n" in ended.out
        assert "problem: 1\n" in ended.out
        assert "skipped: 1\n  tombstone: bd-4\n" in ended.out
        assert len((await bus.call(ListTasks())).items) == 3

    @pytest.mark.usefixtures("service")
    async def test_names_what_is_not_kept_and_that_there_is_more(
        self, tmp_path: Path, nats_url: str
    ) -> None:
        file = tmp_path / "issues.jsonl"
        unknown = {f"field{letter}": "x" for letter in "abcdefghijklm"}
        file.write_text(record(1, **unknown) + "\n" + record(2, fielda="y"))
        told = await fleetbus("import", "beads", str(file), "--dry-run", NATS_URL=nats_url)
        assert "not kept: 14\n  fielda is not kept: bd-1 and 1 more\n" in told.out
        assert "  and 3 other reasons; --verbose names all of them\n" in told.out

    @pytest.mark.usefixtures("service")
    async def test_a_second_one_changes_nothing(self, plan: Path, nats_url: str) -> None:
        await fleetbus("import", "beads", str(plan), NATS_URL=nats_url)
        ended = await fleetbus("import", "beads", str(plan), NATS_URL=nats_url)
        assert ended.code == 0
        assert counts(ended.out)["tasks"] == [0, 0, 3, 0]

    async def test_a_dry_run_stores_nothing(self, plan: Path, bus: Bus, nats_url: str) -> None:
        ended = await fleetbus("import", "beads", str(plan), "--dry-run", NATS_URL=nats_url)
        assert ended.code == 0
        assert ended.out.startswith("would be imported into the initiative beads:issues\n")
        assert counts(ended.out)["tasks"] == [3, 0, 0, 0]
        assert (await bus.call(ListTasks())).items == []

    @pytest.mark.usefixtures("service")
    async def test_verbose_names_each(self, plan: Path, nats_url: str) -> None:
        ended = await fleetbus(
            "import", "beads", str(plan), "--dry-run", "--verbose", NATS_URL=nats_url
        )
        assert "  bd-2: blocks: bd-8 is not in the plan\n" in ended.out
        assert "  bd-3: blocks: bd-9 is not in the plan\n" in ended.out

    @pytest.mark.usefixtures("service")
    async def test_task_master(self, tmp_path: Path, nats_url: str) -> None:
        task = {"id": 1, "title": "One", "status": "pending", "dependencies": [], "subtasks": []}
        file = tmp_path / "tasks.json"
        file.write_text(json.dumps({"master": {"tasks": [task]}}))
        ended = await fleetbus("import", "taskmaster", str(file), NATS_URL=nats_url)
        assert ended.code == 0
        assert counts(ended.out)["tasks"][0] == 1

    async def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        file = tmp_path / "missing.jsonl"
        ended = await fleetbus("import", "beads", str(file))
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == f"{file} cannot be read: No such file or directory\n"

    async def test_a_file_that_holds_no_plan(self, plan: Path) -> None:
        ended = await fleetbus("import", "taskmaster", str(plan))
        assert (ended.code, ended.out) == (1, "")
        assert str(plan) in ended.err
        assert "Traceback" not in ended.err

    async def test_no_handlers(self, plan: Path, nats_url: str) -> None:
        ended = await fleetbus("import", "beads", str(plan), NATS_URL=nats_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("nobody answers")
        assert "no handler process is connected" in ended.err

    async def test_an_initiative_that_is_archived(
        self, plan: Path, later_plan: Path, bus: Bus, nats_url: str
    ) -> None:
        await fleetbus("import", "beads", str(plan), "--name", "web", NATS_URL=nats_url)
        initiative = await bus.call(FindInitiative(external_ref="beads:web"))
        await bus.call(ArchiveInitiative(id=initiative.id))
        ended = await fleetbus(
            "import", "beads", str(later_plan), "--name", "web", NATS_URL=nats_url
        )
        assert ended.code == 1
        assert "is archived" in ended.err
        assert "unarchive" in ended.err
        assert "--name" in ended.err
        assert "Run it again" not in ended.err

    async def test_an_unknown_tool(self, plan: Path) -> None:
        assert (await fleetbus("import", "jira", str(plan))).code == 2


class TestDemo:
    async def test_runs_a_plan(self, tmp_path: Path) -> None:
        file = tmp_path / "issues.jsonl"
        file.write_text("\n".join([record(1), record(2, "bd-1")]))
        ended = await fleetbus("demo", str(file))
        assert ended.code == 0, ended.out + ended.err

    async def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        ended = await fleetbus("demo", str(tmp_path / "missing"))
        assert ended.code == 1
        assert ended.err == f"there is no file {tmp_path / 'missing'}\n"
