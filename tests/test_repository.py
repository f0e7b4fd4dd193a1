"""Laws of the repository itself: what may be in its files, and what its files say of each other."""

import ast
import json
import re
import shutil
import subprocess
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LINES_PER_FILE = 300

# What is longer, and how long. The list only shrinks: nothing is added, no number grows.
LONGER = {
    "bus/running/executor.py": 354,
    "bus/storage/database.py": 345,
    "contracts/agents/agents.py": 419,
    "contracts/planning/initiatives.py": 362,
    "contracts/planning/phases.py": 392,
    "contracts/planning/tasks.py": 392,
    "fleetbus/client/agent.py": 301,
    "fleetbus/server/relay/relay.py": 305,
    "migrations/versions/0002_planning.py": 390,
    "migrations/versions/0003_health.py": 304,
    "tests/agents/test_agent_liveness.py": 327,
    "tests/bus/test_admission.py": 343,
    "tests/bus/test_batching.py": 324,
    "tests/bus/test_sizes.py": 357,
    "tests/bus/test_storms.py": 301,
    "tests/bus/test_troubles.py": 330,
    "tests/fleetbus/cli/test_doctor.py": 340,
    "tests/fleetbus/embedded/test_stack.py": 383,
    "tests/events/test_events.py": 319,
    "tests/faults/checker.py": 342,
    "tests/faults/nemeses.py": 373,
    "tests/faults/test_checker.py": 373,
    "tests/faults/workload.py": 326,
    "tests/health/test_checks.py": 325,
    "tests/laws/test_contracts.py": 302,
    "tests/planning/_plan_history.py": 328,
    "tests/planning/test_containers.py": 317,
    "tests/planning/test_initiatives.py": 375,
    "tests/planning/test_readiness.py": 311,
    "tests/planning/test_task_dependencies.py": 343,
    "tests/fleetbus/relay/test_foreign.py": 355,
    "tests/fleetbus/relay/test_shortening.py": 324,
    "tests/fleetbus/worker/test_agent.py": 368,
}

# Packages that are a face: what others import of them, by one name.
FACES = {
    "bus/contract/__init__.py",
    "bus/handling/__init__.py",
    "bus/storage/__init__.py",
    "fleetbus/client/__init__.py",
}


# Neither list is written out, so that a search for one of these strings does not find this file.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "python" + "hosted", "org"),
        ("registry", "npm" + "js", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("crates", "io"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "debian", "org"),
    )
]
MACHINE_PATH = re.compile(
    r"(?<![\w.~/-])/(?:"
    + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
    + r")/[\w.]"
)

SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|mypy:|ruff:)")
NOQA = r"noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*(?:  # |  | - )"
IGNORE = r"type: ignore\[[a-z-]+(?:, [a-z-]+)*\]  # "
REASONED = re.compile(rf"# (?:{IGNORE}(?:{NOQA})?|{NOQA})(?!noqa|type:)\w")

# Commands that run until told to stop, take too long, or change the tree.
NOT_FOR_CI = {"up", "faults", "bench", "lock", "clean", "help"}


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("what belongs to the repository is known to git, and there is none here")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return tuple(sorted({path for path in paths if path.is_file()}))


@cache
def texts() -> dict[str, str]:
    found = {}
    for path in files():
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def python_files() -> dict[str, str]:
    return {name: text for name, text in texts().items() if name.endswith(".py")}


def places(pattern: re.Pattern[str], name: str, text: str) -> list[str]:
    lines = enumerate(text.splitlines(), start=1)
    return [f"{name}:{number}: {line.strip()}" for number, line in lines if pattern.search(line)]


class TestFiles:
    def test_none_names_a_package_registry(self) -> None:
        pattern = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)))
        assert [place for item in texts().items() for place in places(pattern, *item)] == []

    def test_none_names_a_path_of_somebodys_machine(self) -> None:
        # Data lines (*.jsonl) quote other people's words.
        ours = {name: text for name, text in texts().items() if not name.endswith(".jsonl")}
        assert [place for item in ours.items() for place in places(MACHINE_PATH, *item)] == []

    def test_python_files_are_short(self) -> None:
        sizes = {name: len(text.splitlines()) for name, text in python_files().items()}
        longer = {name: size for name, size in sizes.items() if size > LINES_PER_FILE}
        assert {n: size for n, size in longer.items() if size > LONGER.get(n, 0)} == {}
        assert set(LONGER) <= set(longer), "what is short enough leaves the list"

    def test_package_inits_hold_at_most_a_docstring(self) -> None:
        inits = {n: ast.parse(t) for n, t in python_files().items() if n.endswith("__init__.py")}
        offending = [
            name
            for name, tree in inits.items()
            if name not in FACES
            and len(tree.body) > (ast.get_docstring(tree, clean=False) is not None)
        ]
        assert offending == []

    def test_every_suppression_names_its_rule_and_its_reason(self) -> None:
        offending = []
        for name in python_files():
            with (ROOT / name).open("rb") as source:
                offending += [
                    f"{name}:{token.start[0]}: {token.string}"
                    for token in tokenize.tokenize(source.readline)
                    if token.type == tokenize.COMMENT
                    and SUPPRESSION.search(token.string)
                    and not REASONED.match(token.string)
                ]
        assert offending == []


def test_the_image_is_made_of_every_package() -> None:
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {pattern.removesuffix("*") for pattern in given["packages"]["find"]["include"]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert packages <= {line.removeprefix("!") for line in lines if line.startswith("!")}


class Lock:
    """One file under requirements/: what is pinned to which version, and how."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        joined = self.text.replace("\\\n", " ")
        entries = [
            line for line in joined.splitlines() if line and not line.lstrip().startswith("#")
        ]
        self.hashes = {
            Requirement(entry.split("--hash=")[0].strip()): entry.count("--hash=sha256:")
            for entry in entries
        }

    @property
    def pins(self) -> dict[tuple[str, str], str]:
        """The specifier of each (name, marker); a fork for some platforms is one entry more."""
        return {
            (canonicalize_name(pin.name), str(pin.marker)): str(pin.specifier)
            for pin in self.hashes
        }

    def lacks(self, requirement: str) -> bool:
        wanted = Requirement(requirement)
        versions = [
            str(pin.specifier).removeprefix("==")
            for pin in self.hashes
            if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        ]
        return not versions or not all(map(wanted.specifier.contains, versions))


class TestLocks:
    @pytest.mark.parametrize("name", ["build.txt", "run.txt", "dev.txt", "bench.txt"])
    def test_everything_is_pinned_and_hashed(self, name: str) -> None:
        for pin, hashes in Lock(name).hashes.items():
            assert re.fullmatch(r"==[\w.!+]+", str(pin.specifier)), pin
            assert pin.url is None, pin
            assert hashes, pin

    @pytest.mark.parametrize("name", ["build.txt", "run.txt", "dev.txt", "bench.txt"])
    def test_says_what_and_not_whence(self, name: str) -> None:
        options = re.compile(r"^\s*-(?!-hash=)|://", re.MULTILINE)
        assert options.findall(Lock(name).text) == []

    def test_holds_what_pyproject_asks_for(self) -> None:
        pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        build, run, dev = Lock("build.txt"), Lock("run.txt"), Lock("dev.txt")
        project = pyproject["project"]
        optional = dict(project["optional-dependencies"])
        bench = [item for item in optional.pop("bench") if Lock("bench.txt").lacks(item)]
        extras = [item for extra in optional.values() for item in extra]
        lacking = [item for item in pyproject["build-system"]["requires"] if build.lacks(item)]
        lacking += [item for item in project["dependencies"] if run.lacks(item)]
        lacking += [item for item in project["dependencies"] + extras if dev.lacks(item)]
        assert lacking + bench == [], "run make lock"

    def test_what_is_deployed_is_what_is_tested(self) -> None:
        assert Lock("run.txt").pins.items() <= Lock("dev.txt").pins.items()

    def test_node_packages_have_exact_versions_and_no_lock_with_addresses(self) -> None:
        for name in (name for name in texts() if name.endswith("package.json")):
            package = json.loads(texts()[name])
            asked = package.get("dependencies", {}) | package.get("devDependencies", {})
            for dependency, version in asked.items():
                assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", version), (name, dependency)
        assert [name for name in texts() if name.endswith("package-lock.json")] == []


def make_commands(text: str) -> set[str]:
    return set(re.findall(r"(?:^|[\s`$])make ([a-z]+)(?=[\s`#]|$)", text))


class TestCommands:
    MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
    CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    @pytest.fixture
    def readme(self) -> set[str]:
        readme = ROOT / "README.md"
        if not readme.exists():
            pytest.skip("there is no README yet")
        flags = re.MULTILINE | re.DOTALL
        code = re.findall(r"^```.*?^```|`[^`\n]+`", readme.read_text("utf-8"), flags)
        return make_commands("\n".join(code))

    @property
    def explained(self) -> set[str]:
        return set(re.findall(r"^([a-z]+):.*  ## \S", self.MAKEFILE, re.MULTILINE))

    @property
    def ci(self) -> set[str]:
        code = [line for line in self.CI.splitlines() if not line.lstrip().startswith("#")]
        return make_commands("\n".join(code))

    def test_every_command_is_explained(self) -> None:
        phony = re.search(r"^\.PHONY: (.*)$", self.MAKEFILE, re.MULTILINE)
        assert phony
        assert set(phony[1].split()) - {"FORCE"} == self.explained

    def test_readme_gives_commands_that_exist(self, readme: set[str]) -> None:
        assert readme <= self.explained

    def test_ci_runs_what_the_readme_gives(self, readme: set[str]) -> None:
        assert self.ci == readme - NOT_FOR_CI

    def test_ci_can_be_run(self) -> None:
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
        if bash := shutil.which("bash"):
            subprocess.run([bash, "-n", ROOT / ".ci" / "run"], check=True)
