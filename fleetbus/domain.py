"""Where the domain lies: the packages whose contexts are discovered, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from bus.contract.catalogue import Catalogue
    from bus.running.registry import Registry


@dataclass(frozen=True)
class Packages:
    """The three trees of a domain; each has a folder for each context."""

    contracts: str
    persistence: str
    handlers: str


OURS: Final = Packages("contracts", "persistence", "handlers")


def catalogue(packages: Packages = OURS) -> Catalogue:
    """All that is declared. The first call imports every contract."""
    from bus.contract.catalogue import load

    return load(packages.contracts)


def registry(only: Collection[str] | None = None, *, packages: Packages = OURS) -> Registry:
    """All that is declared, bound to its handlers. The first call imports all three trees.

    Of contexts that are named in ``only`` and those that they import: ``only=("planning",)``.
    """
    from bus.running.registry import load

    return load(**vars(packages), only=only)
