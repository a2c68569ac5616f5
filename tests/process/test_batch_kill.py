"""`likewise score`, killed at 10, 50 and 90 % of its rows, ends with the bytes of a job that nobody disturbed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LIKEWISE = [sys.executable, "-m", "likewise.cli"]
ROWS = 3000
WINDOW = 100
SAVE = """
import os, sys
import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

class Upper(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if log := os.environ.get("ROWS_LOG"):
            with open(log, "ab", buffering=0) as stream:
                stream.write("".join(f"{text}\\n" for text in model_input["text"]).encode())
        if any("bad" in text for text in model_input["text"]):
            raise ValueError("bad row")
        return [text.upper() for text in model_input["text"]]

text = Schema([ColSpec("string", "text")])
mlflow.pyfunc.save_model(sys.argv[1], python_model=Upper(), signature=ModelSignature(text, Schema([ColSpec("string")])))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes the rows it meets into the pipe ROWS_LOG, and so waits until somebody reads them."""
    folder = tmp_path_factory.mktemp("logging")
    (folder / "save.py").write_text(SAVE)
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    subprocess.run([sys.executable, "save.py", "model"], cwd=folder, env=env, check=True, capture_output=True)
    command = [*LIKEWISE, "bundle", "model", "-o", "bundle", "--trust", "--json"]
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return folder / "bundle"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BinaryIO]:
    """The reading end of the pipe; it never ends."""
    os.mkfifo(tmp_path / "rows")
    with open(os.open(tmp_path / "rows", os.O_RDWR), "rb", buffering=0) as stream:
        yield stream


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stop:
        yield stop


def make(path: Path) -> Path:
    texts = [f"t{n}{' bad' * (n % 150 == 7)}" for n in range(ROWS)]
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


def start(running: ExitStack, bundle: Path, source: Path, output: Path, rows: Path | None) -> subprocess.Popen[bytes]:
    command = [*LIKEWISE, "score", str(bundle), str(source), "-o", str(output), "--trust", "--json"]
    env = {**os.environ, **({"ROWS_LOG": str(rows)} if rows else {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    job = subprocess.Popen([*command, "--window", str(WINDOW)], env=env, **pipes)
    running.enter_context(job)
    running.callback(job.kill)
    return job


def first_rows(log: BinaryIO, last: int) -> set[int]:
    """The rows that the model meets until it has met row `last`."""
    text = b""
    while not re.search(rb"t%d\b" % last, text):
        text += log.read(1 << 16)
    return numbers(text)


def numbers(text: bytes) -> set[int]:
    return {int(number) for number in re.findall(rb"t(\d+)\b", text)}


def rest(log: BinaryIO, job: subprocess.Popen[bytes]) -> set[int]:
    """The rows that it still meets until it has ended; what it waits to write is read meanwhile."""
    os.set_blocking(log.fileno(), False)
    text = b""
    while True:
        ended = job.poll() is not None
        more = log.read(1 << 16)
        text += more or b""
        if ended and not more:
            os.set_blocking(log.fileno(), True)
            return numbers(text)


def rows_done(output: Path) -> int:
    journal = output.with_name(f".{output.name}.likewise-staging") / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return int(lines[-1].get("rows", 0))


def everything(output: Path) -> dict[str, object]:
    paths = [*output.iterdir()] if output.is_dir() else [*output.parent.glob(f"{output.name}*")]
    found: dict[str, object] = {path.name: path.read_bytes() for path in paths}
    for name in [name for name in found if name.endswith(".json")]:
        found[name] = {**json.loads(bytes(found[name])), "seconds": 0}  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("source", "output"), [("in", "out"), ("in.jsonl", "out.jsonl"), ("in.parquet", "out")])
def test_killed_three_times(
    tmp_path: Path, bundle: Path, log: BinaryIO, running: ExitStack, source: str, output: str
) -> None:
    data = make(tmp_path / source)
    for folder in ("whole", "again"):
        (tmp_path / folder).mkdir()
    undisturbed = start(running, bundle, data, tmp_path / "whole" / output, None)
    again = tmp_path / "again" / output
    done = 0
    for share in (0.1, 0.5, 0.9):
        job = start(running, bundle, data, again, tmp_path / "rows")
        met = first_rows(log, int(ROWS * share))
        job.send_signal(signal.SIGKILL)
        met |= rest(log, job)
        assert min(met) == done
        assert not again.exists()
        done = rows_done(again)
        assert done % WINDOW == 0
        assert ROWS * share - 2 * WINDOW <= done <= max(met)
    job = start(running, bundle, data, again, tmp_path / "rows")
    assert rest(log, job) == set(range(done, ROWS))
    report = json.loads(job.communicate()[0])
    assert job.returncode == 0
    assert (report["rows_in"], report["rows_quarantined"]) == (ROWS, 20)
    assert undisturbed.wait(120) == 0
    assert everything(again) == everything(tmp_path / "whole" / output)
    assert {entry.name for entry in again.parent.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_sigterm_keeps_what_is_done(tmp_path: Path, bundle: Path, log: BinaryIO, running: ExitStack) -> None:
    data = make(tmp_path / "in.jsonl")
    job = start(running, bundle, data, tmp_path / "out", tmp_path / "rows")
    first_rows(log, ROWS // 2)
    job.terminate()
    rest(log, job)
    out, _ = job.communicate()
    assert job.returncode == 130
    error = json.loads(out)["error"]
    assert error["cause"] == f"stopped; {rows_done(tmp_path / 'out')} rows are done"
    assert error["remedy"] == "run the same command again to go on"
    other = [*LIKEWISE, "score", str(bundle), str(data), "-o", str(tmp_path / "out"), "--trust"]
    said = subprocess.run(other, capture_output=True, text=True)
    assert said.returncode == 1
    assert f"--window was {WINDOW} and is 4096" in said.stderr
    assert "--restart" in said.stderr
