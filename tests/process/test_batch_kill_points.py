"""Jobs that are killed before a change of a file, and run again, give the bytes of an uninterrupted job."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.batch.kill_points import Job, check, local, on_workers
from tests.support.forked import forked


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("job", [local, on_workers])
@pytest.mark.parametrize(("name", "replaces"), [("out.jsonl", True), ("parquet", False)])
def test_job_killed_before_a_change_of_a_file_loses_and_repeats_no_row(
    tmp_path: Path, job: Job, name: str, replaces: bool, every: int
) -> None:
    child = forked(check, tmp_path, job, name, replaces, every, out=tmp_path.with_suffix(".printed"))
    child.join()
    assert child.exitcode == 0, tmp_path.with_suffix(".printed.err").read_text()
