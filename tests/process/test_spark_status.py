"""What people see of a job on Spark while it runs: rows, and Spark's own word on its tasks."""

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


def test_spark_tells_its_tasks_beside_the_rows(tmp_path: Path) -> None:
    model = quick_bundle(tmp_path, 0.002)
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"text {row}\n" for row in range(600)))
    told: list[Progress] = []
    options = ScoreOptions(runner="spark", window=60)
    api.score(model, source, tmp_path / "out", options=options, progress=told.append)
    seen = [re.fullmatch(r"(\d+) of (\d+) tasks", stand.status) for stand in told if stand.status]
    assert seen
    assert all(match and int(match[1]) <= int(match[2]) for match in seen)  # on this machine no executor but the driver
    assert [stand.rows for stand in told] == sorted(stand.rows for stand in told)
    assert told[-1].rows == 600
