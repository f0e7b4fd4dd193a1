"""``python -m tests.faults``: many rounds of faults; results under build/faults/."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fleetbus.server.config import VERSION
from tests.faults.nemeses import NEMESES
from tests.faults.report import RESULTS, tables
from tests.faults.rounds import Result, run_round
from tests.servers import server_directory


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many faults in all")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first round; then one more each"
    )
    parser.add_argument("--rounds", type=int, default=10, help="how many rounds share the faults")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(NEMESES), default=[], help="these faults and no others"
    )
    return parser.parse_args()


def shares(faults: int, rounds: int) -> list[int]:
    """The faults of each round."""
    least, more = divmod(faults, rounds)
    return [least + (number < more) for number in range(rounds)]


async def run(asked: argparse.Namespace) -> list[Result]:
    running = asyncio.current_task()
    assert running is not None
    # Ended from outside, it ends what it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    results = []
    for number, faults in enumerate(shares(asked.faults, asked.rounds)):
        seed = asked.seed + number
        with server_directory() as directory:
            result = await run_round(seed, faults, directory, RESULTS.parent, names=asked.only)
        results.append(result)
        _say(f"seed {seed}: {len(result.struck)} faults, {result.requests} requests, "
             f"{len(result.violations)} violations, {result.seconds:.0f} s")  # fmt: skip
        if result.violations:
            _say(result.report())
    return results


def document(asked: argparse.Namespace, results: Sequence[Result]) -> dict[str, Any]:
    only = f" ARGS='--only {' '.join(asked.only)}'" if asked.only else ""
    numbers = f"FAULTS={asked.faults} SEED={asked.seed} ROUNDS={asked.rounds}"
    return {
        "command": f"make faults {numbers}{only}",
        "date": datetime.now(UTC).date().isoformat(),
        "version": VERSION,
        "rounds": [result.as_json() for result in results],
    }


def main() -> int:
    asked = arguments()
    results = asyncio.run(run(asked))
    made = document(asked, results)
    RESULTS.write_text(json.dumps(made, indent=1))
    _say(f"\n{tables(made)}\n\nresults: {RESULTS}")
    return 1 if any(result.violations for result in results) else 0


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
