"""An interruption loses only the current run of the engine; the next run of the job has everything before it."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from tests.support.batch.scoring import FunctionEngine, names, run_job, texts, upper, write

from likewise.batch import chunk_log
from likewise.batch.chunk_log import ChunkLog, rows_kept
from likewise.core.errors import Interrupted, ModelFailed, RowRefused
from likewise.core.isolation import StopSignal
from likewise.core.items import Row
from likewise.core.results import Failed, Ok

ROWS = 2000  # less than a chunk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.csv", texts(f"t{n:04}{' bad' * (n % 100 == 7)}" for n in range(ROWS)))


class Stopping:
    """Stops like Ctrl-C at a row. seen: the rows it got."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.seen: list[str] = []

    def __call__(self, row: Row) -> object:
        if len(self.seen) == self.at:
            raise StopSignal
        self.seen.append(str(row.get("text")))
        if "bad" in self.seen[-1]:
            raise ValueError(self.seen[-1])
        return upper(row)


def files(folder: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in folder.glob(f"{name}*"):
        data = path.read_bytes()
        neutral = {"seconds": 0, "quarantine": ""}
        key = path.name.removeprefix(name)
        found[key] = {**json.loads(data), **neutral} if path.suffix == ".json" else data
    return found


def test_ctrl_c_keeps_the_rows_of_an_incomplete_chunk(tmp_path: Path, source: Path) -> None:
    run_job(source, tmp_path / "whole.csv", Stopping())
    first, second, last = Stopping(at=494), Stopping(at=494), Stopping()
    with pytest.raises(Interrupted) as caught:
        run_job(source, tmp_path / "again.csv", first)
    kept = int(caught.value.cause.split()[1])
    assert 460 < kept <= 494
    assert caught.value.cause == f"stopped; {kept} rows are done"
    assert caught.value.remedy == "run the same command again to resume"
    with pytest.raises(Interrupted) as caught:
        run_job(source, tmp_path / "again.csv", second)
    progress: list[int] = []
    run_job(source, tmp_path / "again.csv", last, progress=lambda each: progress.append(each.resumed))
    assert progress[-1] == int(caught.value.cause.split()[1]) > 900
    assert len(first.seen) + len(second.seen) + len(last.seen) < ROWS + 200  # failing rows are tried more than once
    assert files(tmp_path, "again.csv") == files(tmp_path, "whole.csv")
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_rows_that_depend_on_others_are_resumed_by_whole_runs(tmp_path: Path, source: Path) -> None:
    def job(name: str, model: Stopping) -> list[int]:
        engine = FunctionEngine(model, row_wise=False, pure=False)
        with suppress(Interrupted):
            run_job(source, tmp_path / name, engine=engine)
        return engine.windows

    whole = job("whole.csv", Stopping())
    windows = [*job("again.csv", Stopping(at=494)), *job("again.csv", Stopping())]
    assert files(tmp_path, "again.csv") == files(tmp_path, "whole.csv")
    assert sum(windows) < sum(whole) + 100


def test_results_are_written_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("likewise.batch.chunk_log.time.monotonic", lambda: now[0])
    log = ChunkLog(tmp_path, 3, tmp_path)
    log.add([0, 2], [Ok("a"), Failed(RowRefused("no", remedy="fix"))], 5, 0.5)
    assert rows_kept(tmp_path, 3) == 0
    now[0] = chunk_log.KEEP_S
    log.add([1], [Ok({"x": [1.5, None, float("inf")]})], 1, 0.25)
    assert (rows_kept(tmp_path, 3), rows_kept(tmp_path, 4)) == (6, 0)
    log.add([4], [Ok(date(2026, 1, 1))], 1, 1.0)  # JSON cannot represent it exactly
    log.add([5], [Ok("\ud800")], 1, 1.0)
    log.close()
    with (tmp_path / chunk_log.NAME).open("ab") as stream:
        stream.write(b'{"chunk": 3, "indices": [6], "ro')  # killed while it was written
    again = ChunkLog(tmp_path, 3, tmp_path)
    assert (again.rows, again.seconds) == (7, 1.75)
    assert again.results.keys() == {0, 1, 2, 5}
    assert again.results[1] == Ok({"x": [1.5, None, float("inf")]})
    assert again.results[5] == Ok("\ud800")
    refused = again.results[2]
    assert isinstance(refused, Failed)
    assert refused.error.as_dict() == {"code": "ROW_REFUSED", "cause": "no", "remedy": "fix"}
    again.add([6], [Ok("b")], 1, 1.0)
    again.close()
    assert rows_kept(tmp_path, 3) == 8
    assert ChunkLog(tmp_path, 4, tmp_path).results == {}


def test_long_runs_become_shorter_if_rows_are_independent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("likewise.batch.scorer.time.monotonic", lambda: now[0])
    source = write(tmp_path / "in.csv", texts(f"t{n:04}" for n in range(500)))

    def slow(row: Row) -> object:
        now[0] += 1.0
        return upper(row)

    for row_wise, largest in ((True, 5), (False, 100)):
        engine = FunctionEngine(slow, row_wise=row_wise, budget=200)
        run_job(source, tmp_path / f"{row_wise}.csv", engine=engine)
        assert engine.windows[0] == 100
        assert max(engine.windows[1:]) == largest


def test_results_of_a_broken_model_are_not_kept(tmp_path: Path, source: Path) -> None:
    def broken(row: Row) -> object:
        raise RuntimeError("no weights")

    with pytest.raises(ModelFailed):
        run_job(source, tmp_path / "out.csv", broken)
    assert names(tmp_path) == {"in.csv"}
