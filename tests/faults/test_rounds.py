"""A short, seeded selection of what `make faults` does at length."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.rounds import run_round
from tests.faults.schedule import nodes_for, possible, schedule

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("collected"),
    # nats-py drops a connection that ends before the server's greeting without closing it.
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]

SELECTED = {
    1: [
        "answer_lost",
        "commit_answer_lost",
        "commit_held",
        "handler_restarted",
        "nats_killed",
        "postgres_killed",
        "publish_held",
        "relay_killed",
        "store_restored",
    ],
    4: ["relay_frozen", "stream_deleted", "stream_leader_killed"],
}
"""Faults by the seed of their round: the first has one NATS server, the second three."""


@pytest.mark.parametrize("seed", SELECTED)
async def test_promises_hold(seed: int, data_dir: Path, tmp_path: Path) -> None:
    names = SELECTED[seed]
    assert possible(nodes_for(seed), names) == sorted(names)
    result = await run_round(seed, len(names), data_dir, tmp_path, names=names)
    assert result.violations == [], result.report()
    assert result.struck, "nothing was done to it"


def test_a_round_has_the_servers_that_its_faults_need() -> None:
    assert nodes_for(1, ["stream_leader_killed"]) == 3
    assert nodes_for(4, ["store_restored"]) == 1
    assert possible(3, ["store_restored", "stream_deleted"]) == ["stream_deleted"]


def test_the_seed_alone_decides_the_schedule() -> None:
    names = possible(1)
    assert schedule(7, 100, names) == schedule(7, 100, names) != schedule(8, 100, names)


@pytest.mark.parametrize("nodes", [1, 3])
def test_each_nemesis_has_its_turn(nodes: int) -> None:
    names = possible(nodes)
    assert {nodes_for(seed) for seed in range(1, 5)} == {1, 3}
    struck = Counter(
        strike.nemesis for seed in range(len(names)) for strike in schedule(seed, 5, names)
    )
    assert struck == dict.fromkeys(names, 5)
