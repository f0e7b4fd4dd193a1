"""A short, seeded selection of what `make faults` does at length."""

from pathlib import Path

import pytest

from tests.faults.nemeses import NEMESES
from tests.faults.rounds import run_round
from tests.faults.schedule import nodes_for, possible, schedule

pytestmark = pytest.mark.faults

SELECTED = [(1, 10), (4, 4)]
"""Seeds and numbers of faults: one NATS server, and three."""


@pytest.mark.parametrize(("seed", "faults"), SELECTED)
async def test_promises_hold(seed: int, faults: int, data_dir: Path, tmp_path: Path) -> None:
    result = await run_round(seed, faults, data_dir, tmp_path)
    assert result.violations == [], result.report()
    assert result.struck, "nothing was done to it"


def test_the_seed_alone_decides_the_schedule() -> None:
    names = possible(1)
    assert schedule(7, 100, names) == schedule(7, 100, names) != schedule(8, 100, names)


def test_each_nemesis_has_its_turn() -> None:
    seeds = range(1, 5)
    assert {nodes_for(seed) for seed in seeds} == {1, 3}
    struck = {
        strike.nemesis
        for seed in seeds
        for strike in schedule(seed, 2 * len(NEMESES), possible(nodes_for(seed)))
    }
    assert struck == {name for nodes in (1, 3) for name in possible(nodes)}
