"""Which faults strike, and when: decided by the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.faults import losses
from tests.faults.nemeses import NEMESES

assert losses.__name__  # its nemeses are declared by the import

APART = (15, 60)
"""Requests between two faults."""


@dataclass(frozen=True)
class Strike:
    """One fault: it strikes after so many requests since the one before was over."""

    nemesis: str
    after: int
    seed: str
    """Decides what the nemesis itself leaves open: whom it strikes, and for how long."""


def nodes_for(seed: int, names: Sequence[str] = ()) -> int:
    """How many NATS servers the round of a seed has, so that one of these nemeses can strike."""
    preferred = (3, 1) if seed % 4 == 0 else (1, 3)
    return next(nodes for nodes in preferred if possible(nodes, names))


def possible(nodes: int, names: Sequence[str] = ()) -> list[str]:
    """Those of these nemeses (of all) that can strike so many NATS servers."""
    return [name for name in sorted(names or NEMESES) if nodes in NEMESES[name].nodes]


def schedule(seed: int, faults: int, names: Sequence[str]) -> list[Strike]:
    """So many faults of these kinds; seeds that follow each other take turns through all kinds."""
    turns = Random("turns").sample(names, len(names))
    mine = [turns[(seed * faults + number) % len(turns)] for number in range(faults)]
    choose = Random(f"schedule of {seed}")
    choose.shuffle(mine)
    return [
        Strike(name, choose.randint(*APART), f"{seed}/{number}") for number, name in enumerate(mine)
    ]
