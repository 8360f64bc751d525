"""Progress: nothing for short work, sparse lines in a log, one line in a terminal."""

import logging
import sys

import pytest

from o3_lightning.common import progress as progress_module
from o3_lightning.common.progress import Progress


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_a_log_has_sparse_lines_with_the_time_left(clock, caplog):
    with caplog.at_level(logging.INFO), Progress("answering", 100) as progress:
        for _ in range(100):  # two seconds each
            clock.now += 2
            progress.advance(1)
    lines = [record.getMessage().strip() for record in caplog.records]
    assert lines[0] == "answering: 15 of 100 rows, 02:50 left"
    assert len(lines) == 6


def test_short_work_and_other_processes_show_nothing(clock, caplog):
    with caplog.at_level(logging.INFO):
        for shown, seconds in ((True, 0.01), (False, 60)):
            with Progress("answering", 10, shown=shown) as progress:
                for _ in range(10):
                    clock.now += seconds
                    progress.advance(1)
    assert not caplog.records


def test_a_terminal_has_one_line_that_is_removed_at_the_end(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("answering", 10) as progress:
        for _ in range(10):
            clock.now += 1
            progress.advance(1)
    shown = capsys.readouterr().err
    assert "answering" in shown
    assert "/10" in shown
    assert "\n" not in shown.strip("\n")
    assert shown.endswith("\r")
