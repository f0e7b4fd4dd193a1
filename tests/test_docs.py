"""What the documentation says is so: pages, quotations, links, commands, names, examples."""

import asyncio
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from bus.contract.operation import OPERATIONS
from contracts.planning.tasks import CreateTask
from docs import make
from docs._configuration import variable
from fleetbus import domain
from fleetbus.cli.app import app
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service

ROOT = Path(__file__).parents[1]
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"

BY_CONTEXT = ROOT / "docs" / make.BY_CONTEXT
WRITTEN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *BY_CONTEXT.glob("*.md")])
GENERATED = {ROOT / "docs" / name for name in make.pages()}
PROSE = [path for path in WRITTEN if path not in GENERATED]

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([\w/]+\.py)`:\n((?:\n```python\n.*?^```\n)+)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", WRITTEN, ids=named)
every_prose = pytest.mark.parametrize("page", PROSE, ids=named)


@cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code(page: Path) -> list[str]:
    """Every line of code on a page, in blocks and in sentences."""
    text = read(page)
    blocks = "".join(block for _, block in FENCED.findall(text))
    return blocks.splitlines() + re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def block(page: Path, language: str) -> str:
    """The first block of a language on a page."""
    blocks: list[tuple[str, str]] = FENCED.findall(read(page))
    return next(text for found, text in blocks if found == language)


@cache
def anchors(page: Path) -> list[str]:
    """What the headings of a page can be reached by, as GitHub spells it."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", read(page)), re.MULTILINE)
    return [
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    ]


class TestGenerated:
    @pytest.mark.parametrize("name", make.pages())
    def test_pages_are_current(self, name: str) -> None:
        assert read(ROOT / "docs" / name) == make.pages()[name], "run make docs"

    @pytest.mark.parametrize("name", make.parts())
    def test_parts_of_the_readme_are_current(self, name: str) -> None:
        text = read(ROOT / "README.md")
        assert make.insert(text, name, make.parts()[name]) == text, "run make docs"

    def test_each_context_has_a_page_and_nothing_else_has(self) -> None:
        contexts = {f"{context.name}.md" for context in domain.catalogue().contexts}
        assert {path.name for path in BY_CONTEXT.iterdir()} == contexts

    def test_each_operation_has_its_place(self) -> None:
        index = ROOT / "docs" / "operations.md"
        for context in domain.catalogue().contexts:
            page = BY_CONTEXT / f"{context.name}.md"
            for operation in context.operations:
                place = operation.declared.subject.replace(".", "")
                assert place in anchors(page)
                assert f"(operations/{page.name}#{place})" in read(index)

    def test_a_page_that_nothing_makes_goes(self, tmp_path: Path) -> None:
        (tmp_path / "docs" / "operations").mkdir(parents=True)
        (tmp_path / "docs" / "operations" / "gone.md").write_text("of a context that was")
        shutil.copy(ROOT / "README.md", tmp_path)
        make.write(tmp_path)
        made = {path.relative_to(tmp_path / "docs") for path in tmp_path.rglob("docs/**/*.md")}
        assert made == {Path(name) for name in make.pages()}

    async def test_the_program_explains_itself_and_refuses_the_rest(self) -> None:
        program = ROOT / "docs" / "make.py"
        assert "Make the generated pages" in await _output("", sys.executable, program, "--help")
        with pytest.raises(AssertionError, match="unrecognized arguments: health"):
            await _output("", sys.executable, program, "health")


class TestQuotations:
    def test_are_what_the_files_say(self) -> None:
        quoted = [
            (file, fragment)
            for page in PROSE
            for file, blocks in QUOTED.findall(read(page))
            for _, fragment in FENCED.findall(blocks)
        ]
        assert len(quoted) > 10
        assert [
            (file, fragment) for file, fragment in quoted if fragment not in read(ROOT / file)
        ] == []


class TestLinks:
    @every_page
    def test_lead_somewhere(self, page: Path) -> None:
        lost = []
        for target in LINK.findall(FENCED.sub("", read(page))):
            name, _, anchor = target.partition("#")
            if "://" in name:
                continue
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                lost.append(target)
        assert lost == []

    @every_page
    def test_lead_to_one_place(self, page: Path) -> None:
        linked = {target.partition("#")[2] for target in LINK.findall(read(page))} - {""}
        assert [anchor for anchor in linked if anchors(page).count(anchor) > 1] == []

    def test_index_has_every_page(self) -> None:
        index = ROOT / "docs" / "README.md"
        linked = {target.partition("#")[0] for target in LINK.findall(read(index))}
        pages = {page.name for page in WRITTEN if page.parent == index.parent and page != index}
        assert pages - linked == set()


class TestNames:
    COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group, as it has several

    @every_prose
    def test_commands_exist_with_their_options(self, page: Path) -> None:
        unknown = []
        for line in code(page):
            for name, rest in re.findall(r"(?<![\w./-])fleetbus ([a-z]+)\b([^|#;&<>]*)", line):
                command = self.COMMANDS.get(name)
                inner = getattr(command, "commands", {})
                command = inner.get(rest.split()[0] if rest.split() else "", command)
                options = (
                    {option for p in command.params for option in p.opts} if command else set()
                )
                asked = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)) - {"--help"}
                if command is None or asked - options:
                    unknown.append(line)
        assert unknown == []

    @every_prose
    def test_variables_exist(self, page: Path) -> None:
        settings = {variable(name) for name in Settings.model_fields}
        flags = {
            variable
            for command in self.COMMANDS.values()
            for parameter in command.params
            for variable in _listed(parameter.envvar)
        }
        named = set(re.findall(r"\b(?:FLEETBUS_[A-Z_]*[A-Z]|DATABASE_URL|NATS_URL)\b", read(page)))
        assert named - settings - flags == set()

    @every_prose
    def test_lines_of_the_log_are_as_they_would_be_now(self, page: Path) -> None:
        logging = re.compile(r"(?:INFO|WARNING|ERROR) +(?:\[\d+\] )?(fleetbus[\w.]*):")
        sources = [*(ROOT / "bus").rglob("*.py"), *(ROOT / "fleetbus").rglob("*.py")]
        loggers = {
            name
            for path in sources
            for name in re.findall(r"getLogger\(\"([\w.]+)\"\)", path.read_text(encoding="utf-8"))
        }
        assert set(logging.findall(read(page))) - loggers == set()
        served = re.findall(r"serves (\d+) operations", read(page))
        assert set(map(int, served)) <= {len(domain.catalogue().operations)}

    @every_prose
    def test_files_exist(self, page: Path) -> None:
        """Those of the tree, save of the context that is made up to be shown."""
        folders = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
        within = re.compile(rf"(?:{'|'.join(folders)})/[\w./-]+")
        named = {words for words in code(page) if within.fullmatch(words) and "toys" not in words}
        assert {name for name in named if not (ROOT / name).exists()} == set()

    @every_prose
    def test_operations_and_events_exist(self, page: Path) -> None:
        catalogue = domain.catalogue()
        subjects = {operation.declared.subject for operation in catalogue.operations}
        types = {event.fact.type for event in catalogue.events}
        like_a_type = re.compile(rf"(?:{'|'.join({t.split('.')[0] for t in types})})\.[a-z_]+")
        text = "\n".join(code(page))
        asked = set(re.findall(r"\bdb\.[a-z_]+\.[a-z_]+\b", text))
        told = set(re.findall(r"(?:\bevents\.|--type )([a-z_]+\.[a-z_]+)\b", text))
        told |= {words for words in code(page) if like_a_type.fullmatch(words)}
        assert (asked - subjects, told - types) == (set(), set())


class TestRequests:
    @every_prose
    def test_are_valid_save_those_that_are_shown_to_be_refused(self, page: Path) -> None:
        lines = code(page)
        wrong = []
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            for subject, body in re.findall(r"\b(?:call|req) (db\.\S+) '(\{.*?\})'", line):
                refused = after.startswith("refused: 400")
                if _is_valid(subject, body) == refused:
                    wrong.append(line)
        assert wrong == []


class TestExamples:
    async def test_python_of_the_readme(self, bus: Bus, nats_url: str, tmp_path: Path) -> None:
        task = await bus.call(CreateTask(name="Write the release notes"))
        program = tmp_path / "worker.py"
        program.write_text(block(ROOT / "README.md", "python"))

        lines = (await _output(nats_url, sys.executable, program)).splitlines()

        assert [line.split()[0] for line in lines] == ["claimed", "completed", "event", "refused"]
        assert f"events.task.completed.{task.id}" in lines[2]

    async def test_python_client(self, service: Service, nats_url: str, tmp_path: Path) -> None:
        assert service.client.is_connected
        program = tmp_path / "typed.py"
        program.write_text(block(ROOT / "docs" / "clients.md", "python"))

        assert await _output(nats_url, sys.executable, program) == (
            "Proofread high True\nrefused: TaskNotFound\n"
        )

    @pytest.mark.node
    @pytest.mark.skipif(
        not (shutil.which("node") and NODE_MODULES.exists()),
        reason="Node.js is not installed, or npm install was not run in tests/node",
    )
    async def test_node(self, service: Service, nats_url: str, tmp_path: Path) -> None:
        assert service.client.is_connected
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        program = tmp_path / "watch.mjs"
        program.write_text(block(ROOT / "docs" / "clients.md", "javascript"))

        output = await _output(nats_url, "node", program)

        assert re.fullmatch(
            r"created Announce it pending\nevent events\.task\.created\.\S+ Announce it\n", output
        )


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])


def _is_valid(subject: str, body: str) -> bool:
    try:
        OPERATIONS[subject].model_validate_json(body)
    except ValidationError:
        return False
    return True


async def _output(nats_url: str, *command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"NATS_URL": nats_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode == 0, errors.decode()
    return output.decode()
