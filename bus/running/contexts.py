"""Which contexts a context needs: those that its modules import, in all trees."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec

from bus.contract.refusals import DeclarationError


def with_needed(only: Iterable[str], packages: Collection[str]) -> frozenset[str]:
    """These contexts of the packages, and what they import, and so on; nothing else is loaded."""
    known = frozenset(name for package in packages for name in _folders(package))
    found: set[str] = set()
    looking = [*only]
    while looking:
        if (context := looking.pop()) not in known:
            raise DeclarationError(f"no context {context} (there are: {', '.join(sorted(known))})")
        if context not in found:
            found.add(context)
            looking += _imported(context, packages) & known
    return frozenset(found)


def import_all(package: str, contexts: Collection[str] | None = None) -> None:
    """Import every module of a package, given by its name; of these contexts only, if given."""
    root = importlib.import_module(package)
    for folder in pkgutil.iter_modules(root.__path__, f"{package}."):
        if contexts is None or folder.name.rpartition(".")[2] in contexts:
            for name in _modules(folder.name):
                importlib.import_module(name)


def _folders(package: str) -> Iterator[str]:
    root = importlib.import_module(package)
    return (folder.name for folder in pkgutil.iter_modules(root.__path__) if folder.ispkg)


def _modules(name: str) -> Iterator[str]:
    """A module and all under it, by name; none where there is no such module."""
    if (spec := find_spec(name)) is None:
        return
    yield name
    for module in pkgutil.iter_modules(spec.submodule_search_locations or ()):
        yield from _modules(f"{name}.{module.name}")


def _imported(context: str, packages: Collection[str]) -> set[str]:
    """The contexts that the modules of one import, as their text says."""
    return {
        imported.removeprefix(f"{package}.").partition(".")[0]
        for module in (m for package in packages for m in _modules(f"{package}.{context}"))
        for imported in _imports(module)
        for package in packages
        if imported.startswith(f"{package}.")
    }


def _imports(module: str) -> Iterator[str]:
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    for node in ast.walk(ast.parse(source or "")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
