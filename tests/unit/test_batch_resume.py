"""Interrupted jobs resume where they stopped and give the same output as uninterrupted ones."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch.scoring import FunctionEngine, names, read, run_job, texts, upper, write

from likewise.batch import JobReport
from likewise.batch.sources import open_source
from likewise.core.errors import InputInvalid, Interrupted, LikewiseError, OutputRefused
from likewise.core.isolation import StopSignal
from likewise.core.items import Row

pytestmark = pytest.mark.slow

SUFFIXES = ["csv", "jsonl", "parquet"]
OUTPUTS = ["out", "out.csv", "out.jsonl", "out.parquet"]
ROWS = 400
WINDOW = 20


@dataclass
class Stopping:
    """A model that is interrupted like by Ctrl-C after `at` rows, and fails on some rows. seen: the rows it got."""

    at: int | None = None
    seen: list[str] = field(default_factory=list)

    def __call__(self, row: Row) -> object:
        text = str(row.get("text"))
        if self.at is not None and len(self.seen) == self.at:
            raise StopSignal
        self.seen.append(text)
        if "bad" in text:
            raise ValueError(text)
        return upper(row)


def everything(output: Path) -> dict[str, object]:
    """All files of an output by name; the manifest without its seconds."""
    paths = [*output.iterdir()] if output.is_dir() else [*output.parent.glob(f"{output.name}*")]
    files: dict[str, object] = {}
    for path in paths:
        data = path.read_bytes()
        name = path.name.replace(output.name, "out")
        files[name] = data if not name.endswith(".json") else {**json.loads(data), "seconds": 0, "quarantine": ""}
    return files


def make(path: Path, rows: int = ROWS) -> Path:
    """Write rows of which some repeat in other windows, and some fail."""
    return write(
        path, [{"n": str(n), "text": f"t{n % 30 if n % 3 else n}{' bad' * (n % 37 == 5)}"} for n in range(rows)]
    )


def until_done(source: Path, output: Path, stops: Sequence[int], **more: object) -> tuple[JobReport, list[Stopping]]:
    """Run a job that is interrupted at each of `stops`, and then to its end."""
    engines = [Stopping(at) for at in stops]
    for engine in engines:
        try:
            return run_job(source, output, engine, window=WINDOW, **more), engines
        except Interrupted:
            pass
    engines.append(Stopping())
    return run_job(source, output, engines[-1], window=WINDOW, **more), engines


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for suffix in SUFFIXES:
        make(folder / f"in.{suffix}")
    return folder


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupted_jobs_give_the_same_bytes(inputs: Path, suffix: str, output: str) -> None:
    small = pytest.MonkeyPatch()
    small.setattr("likewise.batch.sinks.PART_BYTES", 1500)
    small.setattr("likewise.batch.result_cache.LIMIT", 60 * 215)  # fewer than the distinct rows, so some are evicted

    @settings(max_examples=5, deadline=None)
    @given(stops=st.lists(st.integers(0, 120), min_size=1, max_size=4))
    def holds(stops: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = inputs / f"in.{suffix}"
            whole = run_job(source, Path(folder) / f"whole-{output}", Stopping(), window=WINDOW)
            report, engines = until_done(source, Path(folder) / f"again-{output}", stops)
            assert everything(Path(folder) / f"again-{output}") == everything(Path(folder) / f"whole-{output}")
            assert report.duplicates == whole.duplicates > 0
            assert not [name for name in names(Path(folder)) if name.startswith(".")]
            assert len(engines) > 1
            assert sum(len(engine.seen) for engine in engines) < (len(stops) + 1) * ROWS

    try:
        holds()
    finally:
        small.undo()


def test_completed_chunks_are_not_scored_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(f"t{n}" for n in range(ROWS)))
    prepared: list[str] = []

    class Counting(FunctionEngine):
        def prepare(self, items):  # type: ignore[no-untyped-def]
            prepared.extend(item.get("text") for item in items)
            return super().prepare(items)

    first, second = Stopping(at=210), Stopping()
    with pytest.raises(Interrupted) as caught:
        run_job(source, tmp_path / "out", first, window=WINDOW)
    assert caught.value.cause == "stopped; 200 rows are done"
    assert caught.value.remedy == "run the same command again to resume"
    assert names(tmp_path) == {"in.csv", ".out.likewise-staging"}
    progress: list[tuple[int, int]] = []
    run_job(
        source, tmp_path / "out", engine=Counting(second), window=WINDOW,
        progress=lambda each: progress.append((each.rows, each.resumed)),
    )  # fmt: skip
    assert second.seen == prepared == [f"t{n}" for n in range(200, ROWS)]
    assert progress[-1] == (ROWS, 200)
    assert progress[0][0] > 200
    assert names(tmp_path) == {"in.csv", "out"}


LINES = st.sampled_from([b"1,plain", b'2,"a, ""b"""', b'3,"two\nlines"', b'4,"open', b"5,\xff", b"", b"6", b"7,x" * 40])


@given(st.lists(LINES, max_size=40), st.integers(1, 7), st.integers(0, 12), st.sampled_from(SUFFIXES))
@settings(max_examples=60, deadline=None)
def test_skipped_chunks_have_the_same_boundaries_as_read_chunks(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], rows: int, past: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("in")
    for name in ("a", "b"):
        path = folder / f"{name}.{suffix}"
        if suffix == "parquet":
            write(path, [{"n": str(line)} for line in lines] or [{"n": ""}])
        else:
            path.write_bytes(b"\n".join([b"n,text" if suffix == "csv" else b"{}", *lines]))
    read_whole = list(open_source(folder).chunks(rows))
    counted = list(open_source(folder).chunks(rows, past))
    assert [(c.file, c.first, len(c), c.offset) for c in counted] == [
        (c.file, c.first, len(c), c.offset) for c in read_whole
    ]
    assert not any(record for chunk in counted[:past] for record in chunk.records)
    assert [(c.records, c.lines, c.faults.keys()) for c in counted[past:]] == [
        (c.records, c.lines, c.faults.keys()) for c in read_whole[past:]
    ]


def test_restart_starts_from_the_beginning(tmp_path: Path) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW)
    engine = Stopping()
    run_job(source, tmp_path / "out", engine, window=WINDOW, restart=True)
    assert "t0" in engine.seen


def test_interrupted_replacing_job_resumes_without_restart(tmp_path: Path) -> None:
    source = make(tmp_path / "in.csv")
    run_job(source, tmp_path / "out", lambda _: "old")
    with pytest.raises(Interrupted) as caught:
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW, restart=True)
    assert "without --restart" in caught.value.remedy
    assert {row["predictions"] for row in read(tmp_path / "out/part-00000.csv")} == {"old"}
    engine = Stopping()
    run_job(source, tmp_path / "out", engine, window=WINDOW)
    assert "t0" not in engine.seen
    assert read(tmp_path / "out/part-00000.csv")[0]["predictions"] == "<T0>"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"window": 30}, "--window was 20 and is now 30"),
        ({"budget": 7}, "--budget was null and is now 7"),
        ({"column": {"n": "text"}}, '--column was {} and is now {"n": "text"}'),
        ({"params": {"k": 3}}, '--params was null and is now {"k": 3}'),
        ({"params": {"d": datetime(2026, 5, 1)}}, '--params was null and is now {"d": "2026-05-01T00:00:00"}'),
        ({"format": "jsonl"}, "the output's format was csv and is now jsonl"),
        ({"engine": {"precision": "bf16"}}, "the engine was test/fp32 and is now test/bf16"),
        ({"build": "sha256:9"}, "the build of the bundle was sha256:c and is now sha256:9"),
    ],
)
def test_different_job_is_not_resumed(tmp_path: Path, change: dict[str, object], cause: str) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options: dict[str, object] = {"window": WINDOW, **change}
    if "engine" in change:
        options["engine"] = FunctionEngine(upper, **change["engine"])
    with pytest.raises(OutputRefused) as caught:
        run_job(source, tmp_path / "out", **options)
    assert cause in caught.value.cause
    assert "--restart" in caught.value.remedy
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run_job(source, tmp_path / "out", window=WINDOW)


def test_job_with_changed_input_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in/a.csv", 200)
    b = make(tmp_path / "in/b.csv", 200)
    with pytest.raises(Interrupted):
        run_job(tmp_path / "in", tmp_path / "out", Stopping(at=60), window=WINDOW)

    def refused() -> str:
        with pytest.raises(OutputRefused) as caught:
            run_job(tmp_path / "in", tmp_path / "out", window=WINDOW)
        return caught.value.cause

    times = b.stat().st_mtime_ns
    make(b, 201)
    assert "b.csv has changed since" in refused()
    b.rename(tmp_path / "in/c.csv")
    assert "the input of this job does not" in refused()
    make(b, 200)
    os.utime(b, ns=(times, times))
    assert "c.csv, the input of this job does" in refused()
    (tmp_path / "in/c.csv").unlink()
    assert run_job(tmp_path / "in", tmp_path / "out", window=WINDOW).rows_in == 400


@pytest.mark.parametrize("change", ["written to", "removed"])
def test_input_that_changes_while_it_is_read_fails_the_job(tmp_path: Path, change: str) -> None:
    source = make(tmp_path / "in.csv")

    def predict(row: Row) -> object:
        if row.get("text") == "t45":
            source.unlink() if change == "removed" else source.write_text("text\nother\n")
        return upper(row)

    with pytest.raises(InputInvalid, match="while it was read") as caught:
        run_job(source, tmp_path / "out", predict, window=WINDOW)
    assert "nothing writes" in caught.value.remedy
    assert names(tmp_path) <= {"in.csv"}  # the results are not valid


@pytest.mark.parametrize("tail", [b'{"rows": 30', b"\x00\x00\x00\n", b'{"rows": 3', b'[1]\n{"rows": 30}\n'])
def test_incomplete_line_of_the_journal_is_dropped(tmp_path: Path, tail: bytes) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW)
    journal = tmp_path / ".out.likewise-staging/journal.jsonl"
    with journal.open("ab") as stream:
        stream.write(tail)
    for path in (tmp_path / ".out.likewise-staging/output/part-00000.csv", journal.with_name("quarantine.jsonl")):
        with path.open("ab") as stream:
            stream.write(b"half a ro")  # written just before the job was killed
    (journal.with_name("output") / "part-00001.csv").write_bytes(b"text\n")
    run_job(source, tmp_path / "out", Stopping(), window=WINDOW)
    run_job(source, tmp_path / "whole", Stopping(), window=WINDOW)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_journal_without_a_complete_line_is_ignored(tmp_path: Path) -> None:
    source = make(tmp_path / "in.csv")
    staging = tmp_path / ".out.likewise-staging"
    staging.mkdir()
    (staging / "journal.jsonl").write_bytes(b'{"finger')
    engine = Stopping()
    run_job(source, tmp_path / "out", engine, window=WINDOW)
    assert "t0" in engine.seen


def test_damaged_staging_folder_is_not_resumed(tmp_path: Path) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW)
    part = tmp_path / ".out.likewise-staging/output/part-00000.csv"
    part.write_bytes(part.read_bytes()[:10])
    with pytest.raises(OutputRefused, match="are damaged") as caught:
        run_job(source, tmp_path / "out", window=WINDOW)
    assert caught.value.remedy.startswith("use --restart")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("step", ["quarantine.write_parquet", "sinks.sync", "layout.Layout.publish"])
def test_job_interrupted_while_publishing_can_be_resumed(
    tmp_path: Path, output: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "in.csv")
    run_job(source, tmp_path / f"whole-{output}", Stopping(), window=WINDOW)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"likewise.batch.{step}", stop)
        with pytest.raises(Interrupted, match="400 rows are done"):
            run_job(source, tmp_path / f"again-{output}", Stopping(), window=WINDOW)
    again = Stopping()
    run_job(source, tmp_path / f"again-{output}", again, window=WINDOW)
    assert again.seen == []
    assert everything(tmp_path / f"again-{output}") == everything(tmp_path / f"whole-{output}")


@pytest.mark.parametrize("output", OUTPUTS)
def test_staging_folder_of_a_published_job_is_removed(tmp_path: Path, output: str) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / output, Stopping(at=60), window=WINDOW)
    staging = tmp_path / f".{output}.likewise-staging"
    shutil.copytree(staging, tmp_path / "copy")
    run_job(source, tmp_path / output, window=WINDOW)
    (tmp_path / "copy").rename(staging)
    shutil.rmtree(staging / "output")  # it was renamed to the output
    for part in staging.glob("part-*"):
        part.unlink()
    with pytest.raises(OutputRefused, match="exists"):
        run_job(source, tmp_path / output, window=WINDOW)
    assert not staging.exists()


def test_engine_that_fails_to_load_keeps_the_interrupted_job(tmp_path: Path) -> None:
    source = make(tmp_path / "in.csv")
    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", Stopping(at=60), window=WINDOW)

    class Broken(FunctionEngine):
        @property
        def spec(self):  # type: ignore[no-untyped-def]
            raise LikewiseError("no weights", remedy="find them")

        @spec.setter
        def spec(self, _: object) -> None:
            pass

    for restart in (False, True):
        with pytest.raises(LikewiseError, match=r"^no weights\n"):
            run_job(source, tmp_path / "out", engine=Broken(upper), window=WINDOW, restart=restart)
    engine = Stopping()
    run_job(source, tmp_path / "out", engine, window=WINDOW)
    assert "t0" not in engine.seen


def test_seconds_are_summed_over_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("likewise.batch.run.time.monotonic", lambda: now[0])
    source = write(tmp_path / "in.csv", texts(f"t{n}" for n in range(100)))

    def predict(row: Row) -> object:
        now[0] += 1
        if now[0] == 50:
            raise StopSignal
        return upper(row)

    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "out", predict, window=WINDOW)
    now[0] = 1000
    # of the nine rows of the third chunk, four are scored again: after a run of 20 s, the next ones take 5 s
    assert run_job(source, tmp_path / "out", predict, window=WINDOW).seconds == 100
