import logging

import pytest

from bus.kit import logs
from bus.kit.logs import LINES, limited, shown
from tests.bus.asking import eventually

log = logging.getLogger("fleetbus.test")


class TestLimited:
    def test_the_first_lines_of_a_kind_are_written(self, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(LINES):
            assert limited(log, logging.WARNING, "refused", "refused %d", number)
        assert caplog.messages == [f"refused {number}" for number in range(LINES)]
        assert {record.name for record in caplog.records} == {"fleetbus.test"}

    async def test_further_ones_are_counted_and_told_at_the_end_of_the_interval(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "INTERVAL", 0.2)
        for number in range(20_000 + LINES):
            limited(log, logging.WARNING, "refused", "refused %d", number)
        assert len(caplog.messages) == LINES
        assert logs.counts["refused"] == 20_000 + LINES
        await eventually(lambda: len(caplog.messages) > LINES)
        assert caplog.messages[LINES:] == ["… and 20,000 more like it (refused)"]
        assert limited(log, logging.WARNING, "refused", "refused again")

    def test_without_a_loop_the_next_line_tells_it(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "INTERVAL", 0.05)
        for _ in range(LINES + 1):
            limited(log, logging.ERROR, "slow", "slow")
        while not limited(log, logging.ERROR, "slow", "slow again"):
            pass
        assert caplog.messages[LINES].startswith("… and ")
        assert caplog.messages[LINES + 1 :] == ["slow again"]

    def test_a_kind_does_not_silence_another(self, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(LINES + 1):
            limited(log, logging.WARNING, "refused", "refused")
        assert limited(log, logging.WARNING, "too large", "too large")
        assert caplog.messages[-1] == "too large"

    def test_a_traceback_comes_along(self, caplog: pytest.LogCaptureFixture) -> None:
        error = ValueError("odd")
        limited(log, logging.ERROR, "bug", "a bug", exc_info=error)
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[1] is error


class TestShown:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("events.x", "'events.x'"),
            ("a\nb\x1b[31m", "'a\\nb\\x1b[31m'"),
            ("\udcff", "'\\udcff'"),
            (b"\xff", "b'\\xff'"),
            ("x" * 1000, "'" + "x" * 200 + "…'"),
        ],
    )
    def test_quoted_and_short(self, text: object, line: str) -> None:
        assert shown(text) == line
