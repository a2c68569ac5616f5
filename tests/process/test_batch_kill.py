"""`likewise score`, killed at 10, 50 and 90 % of its rows, gives the same bytes as an uninterrupted job."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.forked import likewise

from likewise.batch.chunk_log import rows_kept
from likewise.testing.models import upper_bundle

ROWS = 3000
WINDOW = 100
OPTIONS = ["--json", "--window", str(WINDOW)]
PADDING = "x" * 600  # so that the pipe's buffer cannot hold more than a window
PREDICTING = """
    if "ROWS_LOG" in os.environ:
        with open(os.environ["ROWS_LOG"], "ab", buffering=0) as stream:
            stream.write(text.encode() + b"\\n")
    if "bad" in text:
        raise ValueError("bad row")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes the rows it gets to the pipe ROWS_LOG, and so blocks until they are read."""
    return upper_bundle(tmp_path_factory.mktemp("logging") / "bundle", "", predicting=PREDICTING)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BinaryIO]:
    """The reading end of the pipe, which never reaches its end."""
    os.mkfifo(tmp_path / "rows")
    with open(os.open(tmp_path / "rows", os.O_RDWR), "rb", buffering=0) as stream:
        yield stream


Start = Callable[..., ForkServerProcess]


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Iterator[Start]:
    """Starts jobs that print to `out`, with `logs` also to the pipe; kills them at the end of the test."""
    jobs: list[ForkServerProcess] = []

    def begin(source: Path, output: Path, *options: str, logs: bool = True, out: str = "report") -> ForkServerProcess:
        command = ["score", str(bundle), str(source), "-o", str(output), "--trust", *options]
        env = os.environ | ({"ROWS_LOG": str(tmp_path / "rows")} if logs else {})
        jobs.append(likewise(command, tmp_path / out, env))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()
        job.join()


def make(path: Path) -> Path:
    texts = [f"t{n} {'bad' * (n % 150 == 7)} {PADDING}" for n in range(ROWS)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=700)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        path.mkdir()
        for part in range(3):
            rows = texts[part * ROWS // 3 : (part + 1) * ROWS // 3]
            (path / f"{part}.csv").write_text("text\n" + "\n".join(rows) + "\n")
    return path


def first_rows(log: BinaryIO, last: int) -> set[int]:
    """The rows that the model gets up to row `last`."""
    text = b""
    while not re.search(rb"t%d\b" % last, text):
        text += log.read(1 << 16)
    return numbers(text)


def numbers(text: bytes) -> set[int]:
    return {int(number) for number in re.findall(rb"t(\d+)\b", text)}


def rest(log: BinaryIO, job: ForkServerProcess) -> set[int]:
    """The rows that the model gets until the job exits; reads the pipe so that the job is not blocked."""
    os.set_blocking(log.fileno(), False)
    text = b""
    while True:
        exited = job.exitcode is not None
        more = log.read(1 << 16)
        text += more or b""
        if exited and not more:
            os.set_blocking(log.fileno(), True)
            return numbers(text)


def rows_done(output: Path) -> int:
    journal = output.with_name(f".{output.name}.likewise-staging") / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return int(lines[-1].get("rows", 0))


def everything(output: Path) -> dict[str, object]:
    paths = [*output.iterdir()] if output.is_dir() else [*output.parent.glob(f"{output.name}*")]
    files: dict[str, object] = {path.name: path.read_bytes() for path in paths}
    for name in [name for name in files if name.endswith(".json")]:
        files[name] = {**json.loads(bytes(files[name])), "seconds": 0}  # type: ignore[arg-type]
    return files


@pytest.mark.parametrize(("source", "output"), [("in", "out"), ("in.jsonl", "out.jsonl"), ("in.parquet", "out")])
def test_job_killed_three_times_gives_the_same_bytes(
    tmp_path: Path, log: BinaryIO, start: Start, source: str, output: str
) -> None:
    data = make(tmp_path / source)
    for folder in ("whole", "again"):
        (tmp_path / folder).mkdir()
    uninterrupted = start(data, tmp_path / "whole" / output, *OPTIONS, logs=False, out="uninterrupted")
    again = tmp_path / "again" / output
    done = 0
    for fraction in (0.1, 0.5, 0.9):
        job = start(data, again, *OPTIONS)
        seen = first_rows(log, int(ROWS * fraction))
        job.kill()
        seen |= rest(log, job)
        assert min(seen) == done
        assert not again.exists()
        done = rows_done(again)
        assert done % WINDOW == 0
        assert ROWS * fraction - 2 * WINDOW <= done <= max(seen) + 1  # rows count from 0
    job = start(data, again, *OPTIONS)
    assert rest(log, job) == set(range(done, ROWS))
    assert job.exitcode == 0
    report = json.loads((tmp_path / "report").read_bytes())
    assert (report["rows_in"], report["rows_quarantined"]) == (ROWS, 20)
    uninterrupted.join(120)
    assert uninterrupted.exitcode == 0
    assert everything(again) == everything(tmp_path / "whole" / output)
    assert {entry.name for entry in again.parent.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_sigterm_keeps_completed_rows(tmp_path: Path, log: BinaryIO, start: Start) -> None:
    data = make(tmp_path / "in.jsonl")
    job = start(data, tmp_path / "out", *OPTIONS)
    first_rows(log, ROWS // 2)
    job.terminate()
    rest(log, job)
    assert job.exitcode == 130
    error = json.loads((tmp_path / "report").read_bytes())["error"]
    staging = tmp_path / ".out.likewise-staging"
    kept = rows_kept(staging, rows_done(tmp_path / "out") // WINDOW)
    assert error["cause"] == f"stopped; {rows_done(tmp_path / 'out') + kept} rows are done"
    assert error["remedy"] == "run the same command again to resume"
    other = start(data, tmp_path / "out", logs=False, out="other")
    other.join(60)
    assert other.exitcode == 1
    message = (tmp_path / "other.err").read_text()
    assert f"--window was {WINDOW} and is now 4096" in message
    assert "--restart" in message
