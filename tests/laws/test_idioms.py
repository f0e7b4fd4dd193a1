"""One idiom for each thing that repeats: what is written another way is found here."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bus.contract.refusals import snake_case
from bus.running.discovery import metadata
from bus.storage.locks import LOCKS
from fleetbus import domain

ROOT = Path(__file__).parents[2]
PACKAGES = ("bus", "contracts", "persistence", "handlers", "fleetbus")


@cache
def sources() -> dict[str, str]:
    """Every module of the packages, by its path."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


ADVISORY = re.compile(r"\bpg_\w*advisory\w*|'advisory'")


class TestAdvisoryLocks:
    def test_one_module_asks_the_database_for_them(self) -> None:
        asking = [name for name, text in sources().items() if ADVISORY.search(text)]
        assert asking == ["bus/storage/locks.py"]

    def test_each_says_what_it_is_for(self) -> None:
        domain.registry()
        odd = [lock.name for lock in LOCKS.values() if not re.match(r"[A-Z].*\.$", lock.about)]
        assert odd == []

    def test_those_of_contexts_say_so(self) -> None:
        contexts = {context.name for context in domain.catalogue().contexts}
        owned = re.compile(r'AdvisoryLock\(\s*"(\w+)\.')
        owners = {
            (name.split("/")[1], owner)
            for name, text in sources().items()
            if name.startswith("persistence/")
            for owner in owned.findall(text)
        }
        assert {context for context, _ in owners} <= contexts
        assert [pair for pair in owners if pair[0] != pair[1]] == []


def test_what_depends_on_what_is_asked_of_a_graph() -> None:
    edges = [
        table.name
        for table in metadata("persistence").sorted_tables
        if any(column.name.startswith("depends_on_") for column in table.columns)
    ]
    assert edges
    named = re.compile("|".join(rf"\b{edge.removesuffix('ies')}(?:y|ies)\b" for edge in edges))
    asking = [
        name
        for name, text in sources().items()
        if name.startswith("persistence/")
        and not name.endswith(("/tables.py", "_graph.py"))
        and named.search(text)
    ]
    assert asking == [], "bus.storage.Graph knows"


PLURALS = re.compile(r"""(?:removesuffix|endswith|rstrip)\(["'](?:ie)?s["']\)""")


def test_what_a_row_is_called_is_asked_of_its_table() -> None:
    cutting = [name for name, text in sources().items() if PLURALS.search(text)]
    assert cutting == [], "bus.storage.tables.noun_of knows"


LOOPS = (
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


def loops_that_emit(text: str) -> Iterator[int]:
    """The lines of the loops that call ``emit`` themselves."""
    for loop in ast.walk(ast.parse(text)):
        if isinstance(loop, LOOPS):
            calls = [node.func for node in ast.walk(loop) if isinstance(node, ast.Call)]
            if any(isinstance(called, ast.Name) and called.id == "emit" for called in calls):
                yield loop.lineno


class TestManyDecisions:
    def test_nobody_emits_one_by_one(self) -> None:
        by_hand = [
            f"{name}:{line}"
            for name, text in sources().items()
            if name.startswith("handlers/")
            for line in loops_that_emit(text)
        ]
        assert by_hand == [], "carry_out does it, or emit_all where nothing is saved"

    def test_it_would_be_seen(self) -> None:
        assert list(loops_that_emit("for task in tasks:\n    emit(TaskReady(task=task))\n")) == [1]
        assert list(loops_that_emit("[emit(event) for event in events]")) == [1]
        assert (
            list(loops_that_emit("emit_all((TaskReady(task=t) for t in tasks), emit=emit)")) == []
        )


SLANG = {
    "tell",
    "tells",
    "told",
    "deal",
    "deals",
    "dealt",
    "made",
    "mend",
    "mended",
    "owed",
    "said",
}
PUBLISHED = {"reaction", "periodic"}
"""Who is decorated so is the cause of events by its name, and a name that callers see stays."""

LEFT = {
    "bus/running/invalid.py: _told",
    "bus/running/transaction.py: Told",
}


def names_of_slang(text: str) -> Iterator[str]:
    """Functions and classes with a word that is no term of the field."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = set(snake_case(node.name).strip("_").split("_"))
            decorators = {
                name.id
                for decorator in node.decorator_list
                for name in ast.walk(decorator)
                if isinstance(name, ast.Name)
            }
            if words & SLANG and not decorators & PUBLISHED:
                yield node.name


def test_what_is_defined_has_a_name_of_the_field() -> None:
    slang = {f"{path}: {name}" for path, text in sources().items() for name in names_of_slang(text)}
    assert slang - LEFT == set(), "emit, report, assign, make, reconnect …"


def test_slang_would_be_seen() -> None:
    assert list(names_of_slang("class _TaskTold: ...\nasync def tell_all(): ...")) == [
        "_TaskTold",
        "tell_all",
    ]
    assert list(names_of_slang("@reaction(emits=())\nasync def tell_ready(): ...")) == []
    assert list(names_of_slang("def intelligent(): ...")) == []


SPELLED_TWICE = {
    frozenset({"insert", "update"}): "what commit.py writes, for itself",
    frozenset({"pending", "completed", "blocked"}): "a new task, and a phase that is imported",
}


def enums(text: str) -> Iterator[frozenset[object]]:
    """The values of each ``Literal`` that has several."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=values)):
                yield frozenset(ast.literal_eval(value) for value in values)


def test_an_enum_is_spelled_once() -> None:
    spelled = Counter(values for text in sources().values() for values in enums(text))
    twice = {values for values, times in spelled.items() if times > 1}
    assert [sorted(map(str, values)) for values in twice - SPELLED_TWICE.keys()] == []


def test_an_enum_would_be_seen() -> None:
    assert list(enums('A = Literal["b", "a"]\nB = Literal["a"]')) == [frozenset({"a", "b"})]
