"""Where the domain lies: the packages whose contexts are discovered, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from bus.contract.catalogue import Catalogue
    from bus.running.registry import Registry

CONTRACTS: Final = "contracts"
PERSISTENCE: Final = "persistence"
HANDLERS: Final = "handlers"


def catalogue() -> Catalogue:
    """All that is declared. The first call imports every contract."""
    from bus.contract.catalogue import load

    return load(CONTRACTS)


def registry(only: Collection[str] | None = None) -> Registry:
    """All that is declared, bound to its handlers. The first call imports all three trees.

    Of contexts that are named in ``only`` and those that they import: ``only=("planning",)``.
    """
    from bus.running.registry import load

    return load(contracts=CONTRACTS, persistence=PERSISTENCE, handlers=HANDLERS, only=only)
