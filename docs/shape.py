"""Measures what each operation of a context costs in lines; writes ``docs/shape.md``.

python docs/shape.py health documents
"""  # noqa: INP001  a script, not a package

from __future__ import annotations

import ast
import statistics
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bus.contract.operation import Operation  # noqa: E402  as above
from bus.contract.refusals import snake_case  # noqa: E402  as above
from fleetbus import domain  # noqa: E402  as above

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Node = Definition | ast.Assign | ast.Expr

COLUMNS = ("contract", "function", "rules", "query", "test")

NOTE = """# What an operation costs

Made by `python docs/shape.py {contexts}` from the sources; nothing here is counted by hand.

For each operation: the lines of its class statement (docstring and example included), of its
function with decorator (what only gets or lists has none), of the rules that the function calls in
`handlers/<context>/_*.py` or beside itself, of the queries that it calls under
`persistence/<context>/` (with the statements that they compose beforehand), and of its test class.
Decorators and blank lines inside count, imports do not. A rule or query that several operations
call counts whole for each of them; `persistence/_*.py` serves every context and counts for none.
The last column counts the files of the context that hold these lines, their tests included.

Shared by the operations of a noun and not in the table: the entity, its events, errors and other
replies; the tables and the migration; reactions and jobs; what tests arrange.
"""


@dataclass(frozen=True)
class Cost:
    """The lines of one operation, by kind, and the files that hold them."""

    subject: str
    lines: dict[str, int]
    files: frozenset[str]

    @property
    def total(self) -> int:
        """All lines."""
        return sum(self.lines.values())


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def defined(path: Path) -> dict[str, Node]:
    """What a module defines, by name; statements that are composed beforehand among it."""
    found: dict[str, Node] = {}
    for node in tree(path).body:
        if isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, Definition):
            found[node.name] = node
    return found


def length(node: Node) -> int:
    decorators = node.decorator_list if isinstance(node, Definition) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return (node.end_lineno or first) - first + 1


def imports(path: Path) -> dict[str, Path]:
    """The files behind the names that a module imports from our own packages."""
    found = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = ROOT / node.module.replace(".", "/")
                module = inside / f"{alias.name}.py"
                found[alias.asname or alias.name] = (
                    module if module.exists() else inside.with_suffix(".py")
                )
    return found


def called(path: Path, node: Node) -> set[tuple[Path, str]]:
    """What a function names of ours, with the files that define it."""
    known = imports(path)
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            found.add((known.get(part.value.id), part.attr))
        elif isinstance(part, ast.Name):
            found.add((known.get(part.id, path), part.id))
    return {
        (file, name)
        for file, name in found
        if file and file.exists() and isinstance(defined(file).get(name), Node)
    }


def listings(context: str, operation: str) -> list[tuple[Path, Node]]:
    """What answers an operation that has no function: its ``Listing``, if it lists."""
    return [
        (path, node)
        for path in sorted((ROOT / "persistence" / context).glob("*.py"))
        for node in tree(path).body
        if isinstance(node, ast.Expr | ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "Listing"
        and ast.unparse(node.value.args[0]) == operation
    ]


def cost(operation: type[Operation[Any]]) -> Cost:
    _, context, noun = operation.__module__.split(".")
    contract = ROOT / "contracts" / context / f"{noun}.py"
    handler = ROOT / "handlers" / context / f"{noun}.py"
    name = snake_case(operation.__name__)
    function = defined(handler).get(name) if handler.exists() else None
    parts: dict[str, list[tuple[Path, Node]]] = {
        "contract": [(contract, defined(contract)[operation.__name__])],
        "function": [(handler, function)] if function else [],
        "rules": [],
        "query": [] if function else listings(context, operation.__name__),
        "test": [],
    }
    waiting, seen = called(handler, function) if function else set(), {(handler, name)}
    while waiting:
        file, other = waiting.pop()
        tree_name, *folders = file.relative_to(ROOT).parts
        kind = {"handlers": "rules", "persistence": "query"}.get(tree_name)
        if (
            kind is None
            or folders[0] != context
            or (file, other) in seen
            or file.name == "tables.py"
        ):
            continue
        seen.add((file, other))
        parts[kind].append((file, defined(file)[other]))
        waiting |= called(file, defined(file)[other])
    for path in sorted((ROOT / "tests" / context).rglob("test_*.py")):
        if node := defined(path).get(f"Test{operation.__name__}"):
            parts["test"].append((path, node))
    return Cost(
        operation.declared.subject,
        {kind: sum(length(node) for _, node in nodes) for kind, nodes in parts.items()},
        frozenset(str(p.relative_to(ROOT)) for nodes in parts.values() for p, _ in nodes),
    )


def report(contexts: list[str]) -> str:
    operations = [o for o in domain.catalogue().operations if o.declared.context in contexts]
    costs = [cost(operation) for operation in operations]
    header = ["operation", *COLUMNS, "all", "files"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for one in costs:
        numbers = [*(one.lines[kind] for kind in COLUMNS), one.total, len(one.files)]
        rows.append([f"`{one.subject}`", *map(str, numbers)])
    by_kind = [statistics.median(one.lines[kind] for one in costs) for kind in COLUMNS]
    medians = [
        *by_kind,
        statistics.median(one.total for one in costs),
        statistics.median(len(one.files) for one in costs),
    ]
    rows.append(["**median**", *(f"**{median:g}**" for median in medians)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{NOTE.format(contexts=' '.join(contexts))}\n{table}\n\n{touched(costs)}"


def touched(costs: list[Cost]) -> str:
    """Which files each operation touches."""
    lines = ["## Files of each operation", ""]
    for one in costs:
        names = ", ".join(f"`{name}`" for name in sorted(one.files))
        lines.append(f"- `{one.subject}`: {names}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (ROOT / "docs" / "shape.md").write_text(report(sys.argv[1:]), encoding="utf-8")
