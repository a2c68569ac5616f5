"""Jobs that are killed before a change of a file, and run again, give the bytes of an uninterrupted job."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.batch.kill_points import Job, check, local, on_workers
from tests.support.forked import forked

FILE, FOLDER = ("out.jsonl", True), ("parquet", False)
ALL = [(job, *output) for job in (local, on_workers) for output in (FILE, FOLDER)]
EACH = [pytest.param(*each, 1, marks=pytest.mark.long) for each in ALL]


@pytest.mark.parametrize(("job", "name", "replaces", "every"), [(local, *FOLDER, 29), (on_workers, *FILE, 29), *EACH])
def test_job_killed_before_a_change_of_a_file_loses_and_repeats_no_row(
    tmp_path: Path, job: Job, name: str, replaces: bool, every: int
) -> None:
    child = forked(check, tmp_path, job, name, replaces, every, out=tmp_path.with_suffix(".printed"))
    child.join()
    assert child.exitcode == 0, tmp_path.with_suffix(".printed.err").read_text()
