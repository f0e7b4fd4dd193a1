"""Makes a domain of toys, as large as wanted and shaped like the real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import ROOT
from benchmarks.toys import tables, texts
from fleetbus.domain import Packages

PACKAGE = "toys"
PACKAGES = Packages(f"{PACKAGE}.contracts", f"{PACKAGE}.persistence", f"{PACKAGE}.handlers")

CONTEXTS = 15
OPERATIONS_OF_A_NOUN = 8
"""Create, get, list, update, start, finish, archive, delete; with them six events."""


@dataclass(frozen=True)
class Made:
    """What a domain of toys has."""

    contexts: list[str]
    nouns: int
    operations: int

    @property
    def asked(self) -> str:
        """The noun whose operations are asked."""
        return noun(0)


def make(directory: Path, operations: int) -> Made:
    """Write the packages into a directory; of so many operations, or a few more."""
    nouns = -(-operations // OPERATIONS_OF_A_NOUN)
    contexts = [f"area{number:02}" for number in range(min(CONTEXTS, nouns))]
    for tree in ("", "contracts", "persistence", "handlers"):
        _write(directory / PACKAGE / tree / "__init__.py", "")
    for place, context in enumerate(contexts):
        own = [noun(number) for number in range(place, nouns, len(contexts))]
        _context(directory / PACKAGE, context, own)
    _meta(directory / PACKAGE)
    return Made(contexts, nouns, nouns * OPERATIONS_OF_A_NOUN)


def _meta(root: Path) -> None:
    """The context that describes the others, as it is, with its place as its name."""
    for tree in ("contracts", "handlers"):
        for module in (ROOT / tree / "meta").glob("*.py"):
            text = module.read_text().replace("from contracts.", f"from {PACKAGE}.contracts.")
            _write(root / tree / "meta" / module.name, text)


def noun(number: int) -> str:
    """The name of a noun, in the singular."""
    return f"toy{number:03}"


def _context(root: Path, context: str, nouns: list[str]) -> None:
    for tree in ("persistence", "handlers"):
        _write(root / tree / context / "__init__.py", "")
    _write(root / "contracts" / context / "__init__.py", f'"""Toys of {context}."""\n')
    declared = tables.TABLES_HEAD.replace("AREA", context)
    declared = declared.replace("NOUNS", ", ".join(f"{one}s" for one in nouns))
    for one in nouns:
        declared += _filled(tables.TABLE, context, one)
        for tree, text in texts.OF_A_NOUN.items():
            _write(root / tree / context / f"{one}s.py", _filled(text, context, one))
    _write(root / "persistence" / context / "tables.py", declared)


def _filled(text: str, context: str, singular: str) -> str:
    named = {"AREA": context, "Toy": singular.capitalize(), "toy": singular}
    for word, name in named.items():
        text = text.replace(word, name)
    return text.replace("PACKAGE", PACKAGE)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.lstrip())
