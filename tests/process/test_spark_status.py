"""The progress of a job on Spark: rows, and Spark's own task status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.spark.bundles import quick_bundle

from likewise import api
from likewise.batch import Progress, ScoreOptions

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.usefixtures("spark"),
]


def test_progress_includes_sparks_task_status(tmp_path: Path) -> None:
    model = quick_bundle(tmp_path, 0.002)
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"text {row}\n" for row in range(600)))
    reported: list[Progress] = []
    options = ScoreOptions(runner="spark", window=60)
    api.score(model, source, tmp_path / "out", options=options, progress=reported.append)
    matches = [re.fullmatch(r"(\d+) of (\d+) tasks", each.status) for each in reported if each.status]
    assert matches
    assert all(
        match and int(match[1]) <= int(match[2]) for match in matches
    )  # locally there is no executor except the driver
    assert [each.rows for each in reported] == sorted(each.rows for each in reported)
    assert reported[-1].rows == 600
