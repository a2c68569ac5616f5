"""Jobs on workers, here in this process: the local runner's output, in any order and after any interruption."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch.in_process import WINDOW, InProcess, run_on
from tests.support.batch.scoring import UNSIGNED, names, quarantined, read, run_job, upper, write

from likewise.batch.distributed import blob
from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.core.errors import Interrupted, LikewiseError, ModelFailed, OutputRefused
from likewise.core.items import Row

ROWS = 300


def some_fail(row: Row) -> object:
    if "bad" in str(row.get("text")):
        raise ValueError(row.get("text"))
    return upper(row)


def make(path: Path) -> Path:
    return write(path, [{"n": str(n), "text": f"t{n}{' bad' * (n % 37 == 5)}"} for n in range(ROWS)])


def interrupted(source: Path, output: Path, most: int) -> tuple[InProcess, Staging]:
    """The workers of a job that was interrupted after `most` chunks, and its staging folder."""
    workers = InProcess(most=most)
    with pytest.raises(Interrupted):
        run_on(workers, source, output)
    assert workers.staging is not None
    return workers, workers.staging


def everything(output: Path) -> dict[str, object]:
    """All files of an output; of the manifest the counts that do not depend on the workers."""
    files: dict[str, object] = {path.name: path.read_bytes() for path in output.iterdir()}
    report = json.loads((output / "_likewise.json").read_bytes())
    return {**files, "_likewise.json": {name: report[name] for name in ("rows_in", "rows_ok", "reasons", "engine")}}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_workers_give_the_output_of_the_local_runner(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likewise.batch.sinks.PART_BYTES", 2000)

    @settings(max_examples=3, deadline=None)
    @given(stops=st.lists(st.integers(0, 6), max_size=3), seed=st.integers(0, 99))
    def holds(stops: list[int], seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source = make(folder / f"in.{suffix}")
            run_job(source, folder / "local", some_fail, window=WINDOW)
            done: list[str] = []
            for most in stops:
                workers = InProcess(some_fail, seed, most)
                with pytest.raises(Interrupted) as caught:
                    run_on(workers, source, folder / "out")
                done += workers.scored
                rows = sum(min(WINDOW, ROWS - WINDOW * int(each[-6:])) for each in done)
                assert caught.value.cause.startswith(f"stopped; {rows} rows are done" if rows else "stopped after 0")
            last = InProcess(some_fail, seed)
            resumed: list[int] = []
            report = run_on(last, source, folder / "out", lambda each: resumed.append(each.resumed))
            done += last.scored
            assert len(done) == len(set(done))
            assert resumed[-1] == report.rows_in - sum(
                min(WINDOW, ROWS - WINDOW * int(each[-6:])) for each in last.scored
            )
            assert everything(folder / "out") == everything(folder / "local")
            assert names(folder) == {source.name, "local", "out"}

    holds()


def test_results_leave_the_staging_folder_when_they_are_in_the_output(tmp_path: Path) -> None:
    source = make(tmp_path / "in.jsonl")
    workers, staging = interrupted(source, tmp_path / "out", most=15)
    left = {str(path.relative_to(staging.scored)) for path in staging.scored.glob("*/*")}
    assert left < set(workers.scored)
    with pytest.raises(OutputRefused, match="the runner was spark or ray and is now local"):
        run_job(source, tmp_path / "out", window=WINDOW)
    assert run_job(source, tmp_path / "out", window=WINDOW, restart=True).rows_ok == ROWS


def test_results_without_all_rows_are_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "in.jsonl")
    _, staging = interrupted(source, tmp_path / "out", most=1)
    chunks = staging.snapshot()
    assert chunks is not None
    blob.write(staging.scored / chunks[1].name, {"rows": WINDOW, "ok": WINDOW - 1}, b"{}\n" * (WINDOW - 1), b"")
    with pytest.raises(OutputRefused, match="15 predictions and 0 quarantined rows"):
        run_on(InProcess(), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_corrupt_result_is_scored_again_and_a_corrupt_part_of_the_input_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "in.jsonl")
    _, staging = interrupted(source, tmp_path / "out", most=1)
    result, later = [each.name for each in staging.snapshot() or ()][1:3]
    blob.write(staging.scored / result, {"rows": WINDOW, "ok": WINDOW}, b"forged", b"")
    for file in (staging.scored / result, staging.chunks / later):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(OutputRefused, match="cannot be written"):
        run_on(InProcess(), source, tmp_path / "out")
    for _ in range(2):
        with pytest.raises(OutputRefused, match="part of the input") as refused:
            run_on(InProcess(), source, tmp_path / "out")
        assert refused.value.remedy == "use --restart"
    assert run_on(InProcess(), source, tmp_path / "out", restart=True).rows_ok == ROWS


def test_links_among_results_are_not_followed(tmp_path: Path) -> None:
    source = make(tmp_path / "in.jsonl")
    workers, staging = interrupted(source, tmp_path / "out", most=1)
    chunk = next(each for each in staging.snapshot() or () if each.name not in workers.scored)
    blob.write(tmp_path / "victim", {"rows": WINDOW, "ok": WINDOW}, b"forged", b"")
    (staging.scored / chunk.name).parent.mkdir(exist_ok=True)
    (staging.scored / chunk.name).symlink_to(tmp_path / "victim")
    run_on(InProcess(), source, tmp_path / "out")
    assert {row["predictions"] for row in read(tmp_path / "out/part-00000.jsonl")} >= {"<T1>"}
    assert b"forged" in (tmp_path / "victim").read_bytes()


def test_staging_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "in.jsonl")
    staging = tmp_path / ".out.likewise-staging"
    (staging / "scored").mkdir(parents=True)
    (staging / "distributed.json").write_text("{}")
    staging.chmod(0o700)
    with pytest.raises(OutputRefused, match="earlier version") as caught:
        run_on(InProcess(), source, tmp_path / "out")
    assert caught.value.remedy == "use --restart"
    assert run_on(InProcess(), source, tmp_path / "out", restart=True).rows_ok == ROWS


def test_predictions_of_all_chunks_have_one_type(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": str(n)} for n in range(2 * WINDOW)])
    workers = InProcess(lambda row: [int(row.get("text"))] if int(row.get("text")) < WINDOW else [0.5])
    report = run_on(workers, source, tmp_path / "out.parquet", signature=UNSIGNED)
    predictions = pq.read_table(tmp_path / "out.parquet")["predictions"]
    assert report.prediction_type == str(predictions.type) == "list<element: double>"
    assert predictions.to_pylist() == [[float(n)] for n in range(WINDOW)] + [[0.5]] * WINDOW


def test_model_that_fails_on_all_rows_fails_the_job(tmp_path: Path) -> None:
    def broken(row: Row) -> object:
        raise RuntimeError("no weights")

    source = make(tmp_path / "in.jsonl")
    with pytest.raises(ModelFailed, match="no weights") as caught:
        run_on(InProcess(broken), source, tmp_path / "out")
    assert "rows are done" not in caught.value.cause
    assert names(tmp_path) == {"in.jsonl"}


def test_error_of_a_worker_keeps_the_results(tmp_path: Path) -> None:
    class Failing(InProcess):
        def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None:
            super().score(plan, chunks[:3], tally)
            raise LikewiseError("no memory", remedy="add some")

    source = make(tmp_path / "in.jsonl")
    with pytest.raises(LikewiseError) as caught:
        run_on(Failing(), source, tmp_path / "out")
    assert caught.value.cause.startswith("no memory; ")
    assert caught.value.remedy == "add some; then run the same command again to resume"
    last = InProcess(some_fail)
    run_on(last, source, tmp_path / "out")
    assert len(last.scored) < ROWS // WINDOW
    assert quarantined(tmp_path / "out")
