"""What each operation costs in lines, counted from the sources."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bus.contract.catalogue import Catalogue
from bus.contract.operation import Operation
from bus.contract.refusals import snake_case
from docs._markdown import joined, table

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Node = Definition | ast.Assign
Place = tuple[Path, str]

COLUMNS: Final = ("contract", "function", "rules", "query", "test")

BEFORE: Final = {
    "agents": 82,
    "documents": 28,
    "events": 123.5,
    "health": 55,
    "meta": 48,
    "planning": 78,
}
"""The median lines of an operation, counted in the same way before there were five packages."""

BEFORE_ALL: Final = 70
BEFORE_TWO: Final = 54

NOTE: Final = """\
Made by `make docs` from the sources; nothing here is counted by hand.

Before the five packages (`bus`, `contracts`, `persistence`, `handlers`, `fleetbus`) the median of
133 operations was {before:g} lines, now it is {now:g} lines of {operations}. Of `health` and
`documents` alone: {before_two:g} lines before, {now_two:g} now.

For each operation: the lines of its class statement (docstring and example included), of its
function with decorator, of the rules that the function calls in `handlers/<context>/`, of the
queries that it calls under `persistence/<context>/` (with the statements that they compose
beforehand), and of its test class. An operation that its declaration answers has no function; its
query is what names it under `persistence/<context>/`.
Decorators and blank lines inside count, imports do not. A rule or query that several operations
call counts whole for each of them; `bus/` serves every context and counts for none.
The last column counts the files of the context that hold these lines, their tests included.

Shared by the operations of a noun and not in the tables: the entity, its events, errors and other
replies; the tables and the migration; reactions and jobs; what tests arrange."""


@dataclass(frozen=True)
class Cost:
    """The lines of the definitions that one operation consists of, by kind."""

    subject: str
    lines: dict[str, dict[Place, int]]

    @property
    def total(self) -> int:
        """All lines."""
        return sum(sum(found.values()) for found in self.lines.values())

    @property
    def numbers(self) -> tuple[int, ...]:
        """The columns of a row."""
        kinds = [sum(self.lines[kind].values()) for kind in COLUMNS]
        files = {path for found in self.lines.values() for path, _ in found}
        return (*kinds, self.total, len(files))


@dataclass(frozen=True)
class Sources:
    """The modules below a folder, each read once."""

    root: Path
    _trees: dict[Path, ast.Module] = field(default_factory=dict)

    def tree(self, path: Path) -> ast.Module:
        """A module's syntax; that of a file that is not there is empty."""
        if path not in self._trees:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            self._trees[path] = ast.parse(text)
        return self._trees[path]

    def defined(self, path: Path) -> dict[str, Node]:
        """What a module defines, by name; statements that are composed beforehand among it."""
        found: dict[str, Node] = {}
        for node in self.tree(path).body:
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                found |= dict.fromkeys(names, node)
            elif isinstance(node, Definition):
                found[node.name] = node
        return found

    def modules(self, tree: str, context: str, pattern: str = "*.py") -> list[Path]:
        """The modules of a context in one of the trees."""
        return sorted((self.root / tree / context).rglob(pattern))

    def length(self, place: Place) -> int:
        """The lines of a definition, decorators included."""
        path, name = place
        node = self.defined(path)[name]
        decorators = [] if isinstance(node, ast.Assign) else node.decorator_list
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return (node.end_lineno or first) - first + 1

    def called(self, place: Place) -> set[Place]:
        """What a definition names of ours, with the files that define it."""
        path, name = place
        known = self._imports(path)
        found = set()
        for part in ast.walk(self.defined(path)[name]):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                found.add((known.get(part.value.id), part.attr))
            elif isinstance(part, ast.Name):
                found.add((known.get(part.id, path), part.id))
        return {(file, name) for file, name in found if file and name in self.defined(file)}

    def _imports(self, path: Path) -> dict[str, Path]:
        """The files behind the names that a module imports from our own packages."""
        found = {}
        for node in ast.walk(self.tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = self.root / node.module.replace(".", "/")
                for alias in node.names:
                    module = inside / f"{alias.name}.py"
                    found[alias.asname or alias.name] = (
                        module if module.exists() else inside.with_suffix(".py")
                    )
        return found


def cost(operation: type[Operation[Any]], sources: Sources) -> Cost:
    """What one operation costs."""
    _, context, noun = operation.__module__.split(".")
    contract = sources.root / "contracts" / context / f"{noun}.py"
    handler = sources.root / "handlers" / context / f"{noun}.py"
    function, test = snake_case(operation.__name__), f"Test{operation.__name__}"

    places: dict[str, set[Place]] = {kind: set() for kind in COLUMNS}
    places["contract"] = {(contract, operation.__name__)}
    if function in sources.defined(handler):
        places["function"] = {(handler, function)}
    else:
        places["query"] = set(_naming(operation, context, sources))
    for kind, place in _behind(places["function"] | places["query"], context, sources):
        places[kind].add(place)
    tests = sources.modules("tests", context, "test_*.py")
    places["test"] = {(path, test) for path in tests if test in sources.defined(path)}

    lengths = {kind: {p: sources.length(p) for p in found} for kind, found in places.items()}
    return Cost(operation.declared.subject, lengths)


def _behind(starts: Iterable[Place], context: str, sources: Sources) -> Iterator[tuple[str, Place]]:
    """The rules and queries of a context that these definitions call, and those that they call."""
    waiting, seen = list(starts), set(starts)
    while waiting:
        for place in sources.called(waiting.pop()) - seen:
            kind = _kind(place[0], context, sources)
            if kind is not None:
                seen.add(place)
                waiting.append(place)
                yield kind, place


def _kind(file: Path, context: str, sources: Sources) -> str | None:
    """Whether what this file defines is a rule or a query of the context."""
    tree, *folders = file.relative_to(sources.root).parts
    if folders[0] != context or file.name == "tables.py":
        return None
    return {"handlers": "rules", "persistence": "query"}.get(tree)


def _naming(operation: type[Operation[Any]], context: str, sources: Sources) -> Iterator[Place]:
    """What answers an operation that has no function: what names it under ``persistence/``."""
    for path in sources.modules("persistence", context):
        for name, node in sources.defined(path).items():
            words = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            if operation.__name__ in words:
                yield path, name


def shape_page(catalogue: Catalogue, root: Path) -> str:
    """Every operation with its lines, by context; what contexts cost together comes first."""
    sources = Sources(root)
    costs = {c.name: [cost(o, sources) for o in c.operations] for c in catalogue.contexts}
    every = [one for found in costs.values() for one in found]
    two = [*costs.get("health", []), *costs.get("documents", [])]
    note = NOTE.format(
        before=BEFORE_ALL,
        now=statistics.median(one.total for one in every),
        operations=len(every),
        before_two=BEFORE_TWO,
        now_two=statistics.median(one.total for one in two),
    )
    parts = ["# What an operation costs", note, _contexts(costs, every)]
    head = ("operation", *(f">{title}" for title in (*COLUMNS, "all", "files")))
    for context, found in costs.items():
        rows = [(f"`{one.subject}`", *map(str, one.numbers)) for one in found]
        rows.append(("**median**", *(f"**{median:g}**" for median in _medians(found))))
        parts.append(f"## {context}\n\n{table(head, rows)}")
    return joined(parts)


def _contexts(costs: dict[str, list[Cost]], every: list[Cost]) -> str:
    """All contexts, a row each: their lines, and the median of an operation."""
    head = ("operations", "lines", "median before", "median now", *(f"of {c}" for c in COLUMNS))
    rows = [
        _context(context, found, f"{BEFORE[context]:g}" if context in BEFORE else "")
        for context, found in costs.items()
    ]
    rows.append(_context("**all**", every, f"{BEFORE_ALL:g}"))
    lead = "Of each context: all these lines, each counted once, and the median of an operation."
    return f"{lead}\n\n{table(('context', *(f'>{title}' for title in head)), rows)}"


def _context(name: str, costs: list[Cost], before: str) -> tuple[str, ...]:
    *kinds, total, _ = _medians(costs)
    once = {place: n for one in costs for found in one.lines.values() for place, n in found.items()}
    numbers = (f"{number:g}" for number in (total, *kinds))
    return (name, str(len(costs)), f"{sum(once.values()):,}", before, *numbers)


def _medians(costs: list[Cost]) -> list[float]:
    return [statistics.median(column) for column in zip(*(c.numbers for c in costs), strict=True)]
