"""The shape of the tree: what lies where, and who may know whom, down to the single file."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bus.storage import TABLES
from fleetbus import domain

ROOT = Path(__file__).parents[2]
PACKAGES = ("bus", "contracts", "persistence", "handlers", "fleetbus")
DOMAIN = ("contracts", "persistence", "handlers")


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(name: str) -> Iterator[str]:
    """The modules of ours that a module imports, also those for the type checker alone."""
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if (found := inner if inner in modules() else node.module) in modules():
                    yield found


def folder(name: str) -> str:
    return name.rpartition(".")[0]


def test_what_is_private_to_a_folder_is_imported_there_alone() -> None:
    offending = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if other.rpartition(".")[2].startswith("_")
        and not other.endswith("__")
        and folder(name) != folder(other)
    ]
    assert offending == []


def test_no_two_files_import_each_other() -> None:
    edges = {
        name: {other for other in imported(name) if modules()[other].name != "__init__.py"}
        for name, path in modules().items()
        if path.name != "__init__.py"
    }
    assert _on_circles(edges) == [], "these are on circles, or import what is"


def _on_circles(edges: dict[str, set[str]]) -> list[str]:
    """Of what knows what: all that is on a circle, or knows what is."""
    while leaves := {name for name, others in edges.items() if not others & edges.keys()}:
        edges = {name: others for name, others in edges.items() if name not in leaves}
    return sorted(edges)


def test_nor_do_rooms_of_a_folder() -> None:
    """Its files and its folders, each with all that is in it."""
    rooms: dict[str, dict[str, set[str]]] = {}
    for name, path in modules().items():
        if path.name == "__init__.py":
            continue  # a face
        for other in imported(name):
            mine, theirs = name.split("."), other.split(".")
            depth = next(
                (d for d, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), 0
            )
            if depth and depth < len(mine) and modules()[other].name != "__init__.py":
                known = rooms.setdefault(".".join(mine[:depth]), {})
                known.setdefault(mine[depth], set()).add(theirs[depth])
                known.setdefault(theirs[depth], set())
    assert {folder: found for folder, edges in rooms.items() if (found := _on_circles(edges))} == {}


def test_the_domain_lies_in_contexts() -> None:
    at_the_root = [
        str(path.relative_to(ROOT))
        for package in DOMAIN
        for path in (ROOT / package).glob("*.py")
        if path.name != "__init__.py"
    ]
    assert at_the_root == []


PLAIN = {"__init__", "tables", "states", "_fields", "_errors"}
"""Files of a context that are about all of it."""

WITHOUT_ENTITIES = {"events": {"event"}}


def test_a_part_of_a_noun_is_called_after_it() -> None:
    domain.registry()
    owners = {entity: entity.__module__.split(".")[1] for entity in TABLES}
    offending = []
    for context in (each.name for each in domain.catalogue().contexts):
        singular = {entity.noun for entity, owner in owners.items() if owner == context}
        singular |= {context} | WITHOUT_ENTITIES.get(context, set())
        nouns = {path.stem for path in (ROOT / "contracts" / context).glob("[!_]*.py")}
        for package in DOMAIN:
            for path in (ROOT / package / context).rglob("*.py"):
                stem = path.stem.lstrip("_")
                if path.stem in PLAIN | nouns or stem in singular:
                    continue
                if not stem.startswith(tuple(f"{noun}_" for noun in singular)):
                    offending.append(path.relative_to(ROOT).as_posix())
    assert offending == []
