"""The progress display of a job: a bar on a terminal, otherwise plain lines on stderr."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from likewise.batch import Progress
from likewise.cli import progress
from likewise.cli.progress import JobProgress

START = Progress(rows=1000, total=None, fraction=0.1, tokens=9, seconds=2.0, resumed=900)
LATER = Progress(rows=4000, total=None, fraction=0.4, tokens=90, seconds=5.0, duplicates=1200, resumed=900)


def test_rate_and_time_left_refer_to_this_run() -> None:
    assert START.describe(START) == "1,000 rows, 50 rows/s, 900 from earlier runs"
    # 0.3 of the input in 3 s, so 0.6 takes 6
    assert LATER.describe(START) == "4,000 rows, 620 rows/s, 1,200 duplicates, 900 from earlier runs, 0:00:06 left"


def test_runner_status_is_shown() -> None:
    text = replace(LATER, duplicates=0, status="2 executors, 3 of 12 tasks").describe(START)
    assert text == "4,000 rows, 620 rows/s, 900 from earlier runs, 2 executors, 3 of 12 tasks, 0:00:06 left"


def test_the_model_is_loading_until_the_first_rows_of_this_run_are_complete() -> None:
    loading = replace(START, rows=900, total=9000, status="2 executors")
    assert loading.describe(loading) == "900/9,000 rows, loading the model, 900 from earlier runs, 2 executors"
    assert "0 rows/s" in replace(loading, rows=9000, resumed=9000, fraction=1.0).describe(loading)


def test_known_total_is_shown() -> None:
    half = Progress(rows=5, total=10, fraction=0.5, tokens=1, seconds=0.0)
    assert half.describe(half) == "5/10 rows, 0 rows/s"


def test_pipe_gets_a_plain_line_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with JobProgress("in.csv") as shown:
        for second in range(25):
            now[0] = float(second)
            shown.show(LATER)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "in.csv: 40.0%, 4,000 rows, 620 rows/s, 1,200 duplicates, 900 from earlier runs\n" * 2


def test_terminal_gets_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(progress, "err", screen)
    with JobProgress("in.csv") as shown:
        shown.show(START)
        shown.show(LATER)
    output = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "40%" in output
    assert "0:00:06 left" in output
