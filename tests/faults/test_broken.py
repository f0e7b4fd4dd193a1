"""The checker is checked: each mistake is found by a schedule that the sound code passes."""

from pathlib import Path

import pytest

from tests.faults.broken import BROKEN
from tests.faults.directed import DIRECTED, Directed, Schedule, late_commit, play

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("collected"),
    # nats-py drops a connection that ends before the server's greeting without closing it.
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]

SCHEDULES = list({directed.schedule: None for directed in DIRECTED})


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
async def test_the_sound_code_passes(
    schedule: Schedule, database_url: str, nats_url: str, tmp_path: Path
) -> None:
    assert await play(schedule, database_url, nats_url, tmp_path) == []


@pytest.mark.parametrize("directed", DIRECTED, ids=lambda directed: directed.mistake)
async def test_a_mistake_is_found(
    directed: Directed, database_url: str, nats_url: str, tmp_path: Path
) -> None:
    found = await play(directed.schedule, database_url, nats_url, tmp_path, directed.mistake)
    assert {violation.rule for violation in found} >= directed.rules


async def test_the_reconciler_does_not_hide_a_mistake(
    database_url: str, nats_url: str, tmp_path: Path
) -> None:
    found = await play(late_commit, database_url, nats_url, tmp_path, "bare_cursor", mending=True)
    assert {violation.rule for violation in found} == {"mended"}


def test_every_mistake_has_a_schedule() -> None:
    assert {directed.mistake for directed in DIRECTED} == BROKEN.keys()
