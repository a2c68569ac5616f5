"""Output of batch jobs: complete or absent; invalid inputs and options are rejected with a remedy."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType

import pytest
from tests.support.batch.scoring import (
    TEXT,
    FunctionEngine,
    names,
    quarantined,
    read,
    run_job,
    texts,
    upper,
    write,
)

from likewise.batch import ScoreOptions, local, score
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.layout import write_errors
from likewise.batch.runners import GROUP, RUNNERS, runner
from likewise.batch.score_options import parse_columns, parse_conf
from likewise.batch.sinks import Output
from likewise.batch.staging import Claim
from likewise.core.engine import EngineSpec
from likewise.core.errors import (
    InputInvalid,
    InputNotFound,
    Interrupted,
    LikewiseError,
    MissingExtra,
    OutputRefused,
    WrongUsage,
)
from likewise.core.extras import install_command
from likewise.core.isolation import StopSignal
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.engine.load import LazyEngine

STARTING = {function.__code__ for function in (Output.__enter__, Output.resume, Claim.acquire, Claim.clear)}
OUTPUTS = ["out", "out.csv", "out.jsonl", "out.parquet"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.csv", texts(f"t{n}" for n in range(50)))


@pytest.mark.parametrize("output", OUTPUTS)
def test_existing_output_is_replaced_only_with_restart(tmp_path: Path, source: Path, output: str) -> None:
    run_job(source, tmp_path / output)
    before = names(tmp_path)
    with pytest.raises(OutputRefused, match="exists") as caught:
        run_job(source, tmp_path / output, predict=lambda _: "new")
    assert "--restart" in caught.value.remedy
    run_job(source, tmp_path / output, predict=lambda _: "new", restart=True)
    data = tmp_path / output
    rows = read(data / "part-00000.csv" if data.is_dir() else data)
    assert {row["predictions"] for row in rows} == {"new"}
    assert names(tmp_path) == before


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("restart", [False, True])
def test_ctrl_c_before_the_first_chunk_is_complete_leaves_nothing(
    tmp_path: Path, source: Path, output: str, restart: bool
) -> None:
    if restart:
        run_job(source, tmp_path / output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stop(row: Row) -> object:
        if row.get("text") == "t30":
            raise StopSignal
        return upper(row)

    with pytest.raises(Interrupted) as caught:
        run_job(source, tmp_path / output, predict=stop, restart=restart)
    assert "after 0 rows" in caught.value.cause
    assert "same command" in caught.value.remedy
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("output", OUTPUTS)
def test_failing_rename_keeps_the_old_output(
    tmp_path: Path, source: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(source, tmp_path / output)
    data = tmp_path / output
    before = {path: path.read_bytes() for path in data.rglob("*")} if data.is_dir() else data.read_bytes()

    def fail(target: object) -> None:
        raise OSError(errno.EIO, "x")

    def rename(path: Path, target: Path) -> Path:
        return fail(target) if target == data and path.name != "replaced" else Path(os.rename(path, target) or target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", rename)
    with pytest.raises(OutputRefused, match=r"Input/output error.*50 rows are done"):
        run_job(source, data, predict=lambda _: "new", restart=True)
    assert ({path: path.read_bytes() for path in data.rglob("*")} if data.is_dir() else data.read_bytes()) == before
    monkeypatch.undo()
    engine = FunctionEngine(upper)
    assert run_job(source, data, engine=engine).rows_ok == 50  # resumes, and replaces the output as requested before
    assert engine.windows == []
    rows = read(data / "part-00000.csv" if data.is_dir() else data)
    assert {row["predictions"] for row in rows} == {"new"}
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_missing_pyarrow_names_the_extra_to_install(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / f"in.{suffix}", texts(["a"]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra) as caught:
        run_job(source, tmp_path / "out")
    assert caught.value.remedy == install_command("batch")
    assert names(tmp_path) == {f"in.{suffix}"}


def test_other_files_are_never_replaced(tmp_path: Path, source: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    for output, cause in (("home", "contains other files"), ("in.csv", "the input itself")):
        with pytest.raises(OutputRefused, match=cause):
            run_job(source, tmp_path / output, restart=True)
    assert (tmp_path / "home/thesis.txt").exists()


def test_empty_output_folder_is_used(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    run_job(source, tmp_path / "out")
    assert names(tmp_path) == {"in.csv", "out"}


def test_second_job_on_the_same_output_is_refused(tmp_path: Path, source: Path) -> None:
    staging = tmp_path / ".out.likewise-staging"
    staging.mkdir()
    other = os.open(staging, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    (staging / "part-00000.csv").write_text("of the other job")
    with pytest.raises(OutputRefused, match="another job"):
        run_job(source, tmp_path / "out")
    assert names(staging) == {"part-00000.csv"}
    os.close(other)  # the other job is killed
    run_job(source, tmp_path / "out")
    assert names(tmp_path) == {"in.csv", "out"}


def test_missing_parent_folder_is_reported(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputRefused) as caught:
        run_job(source, tmp_path / "no/out.csv")
    assert caught.value.remedy == f"mkdir -p {tmp_path / 'no'}"


def test_output_folder_deleted_during_the_job_is_reported(tmp_path: Path, source: Path) -> None:
    (tmp_path / "gone").mkdir()

    def vanish(row: Row) -> object:
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        return upper(row)

    with pytest.raises(OutputRefused, match="No such file"):
        run_job(source, tmp_path / "gone/out.csv", predict=vanish)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_operating_system_errors_get_a_remedy(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputRefused, match=os.strerror(number)) as caught, write_errors(tmp_path):
        raise OSError(number, "x")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "error", "cause", "remedy"),
    [
        ("none.csv", None, InputNotFound, "No such file", "check the path"),
        ("in.xlsx", b"x", WrongUsage, "unknown file format", "--input-format"),
        ("in.csv", b"", InputInvalid, "no header", "column names"),
        ("in.csv", b"review,stars\na,5\n", InputInvalid, "no column `text`", "--column review=text"),
        ("in.csv", b"Text,stars\na,5\n", InputInvalid, "no column `text`", "--column Text=text"),
        ("in.csv", b"text,text\na,5\n", InputInvalid, "two columns are named 'text'", "own name"),
        ("in.csv", b"text,predictions\na,5\n", InputInvalid, "already has a column `predictions`", "rename"),
        ("in.csv", b"t\xff,b\na,5\n", InputInvalid, "header is not valid Unicode", "UTF-8"),
        ("in.jsonl", b'{"review": "a"}\n', InputInvalid, "no column `text`", "--column review=text"),
        ("in.jsonl", b'{"text": "a", "predictions": 1}\n', InputInvalid, "already has a column", "rename"),
        ("in.json", b'[{"text": "a"}]', InputInvalid, "one JSON document", "jq -c"),
        ("in.json", b'{\n"text": "a"\n}', InputInvalid, "one JSON document", "jq -c"),
        ("in.parquet", b"PAR1 not at all", InputInvalid, "cannot be read as Parquet", "create it again"),
    ],
)
@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_invalid_inputs_are_rejected(
    tmp_path: Path, output: str, name: str, content: bytes | None, error: type[LikewiseError], cause: str, remedy: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = names(tmp_path)
    with pytest.raises(error, match=cause) as caught:
        run_job(tmp_path / name, tmp_path / output)
    assert remedy in caught.value.remedy
    assert names(tmp_path) == before


def test_too_long_field_affects_only_its_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likewise.batch.formats.csv_lines.FIELD_LIMIT", 100)
    (tmp_path / "in.csv").write_text('text\na\n"' + "x\n" * 200 + "y" * 101 + "\nlast\n")
    report = run_job(tmp_path / "in.csv", tmp_path / "out.csv", window=7)
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["a", *["x"] * 199, "last"]
    assert (report.rows_in, report.rows_quarantined) == (203, 2)
    for row, line, text in zip(quarantined(tmp_path / "out.csv"), (3, 203), ('"x', "y" * 101), strict=True):
        assert f"begins on line {line} has a field of more than 100 characters" in row["cause"]
        assert json.loads(row["columns"]) == {"": text}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("source", "output", "cause"),
    [
        ("OUT/mine.csv", "OUT", "contains the input"),
        ("OUT/deep/mine.csv", "OUT", "contains the input"),
        ("z.csv.quarantine.parquet", "z.csv", "is the input itself"),
        ("z.csv.likewise.json", "z.csv", "is the input itself"),
        ("z.csv", "z.csv", "is the input itself"),
        ("in.csv", "thesis.csv", "was not written by a job"),
        ("in.csv", "y.csv", "was not written by a job"),
        ("in.csv", "w.csv", "was not written by a job"),
        ("in.csv", "mixed", "contains other files"),
    ],
)
def test_inputs_and_foreign_files_are_not_replaced(
    tmp_path: Path, source: str, output: str, cause: str, restart: bool
) -> None:
    run_job(write(tmp_path / "first.csv", texts(["a"])), tmp_path / "OUT")
    run_job(tmp_path / "first.csv", tmp_path / "mixed")
    (tmp_path / "OUT/deep").mkdir()
    foreign = ["thesis.csv", "y.csv.quarantine.parquet", "w.csv.likewise.json", "mixed/notes.txt"]
    for name in {*foreign, "in.csv", source}:
        (tmp_path / name).write_text("text\nprecious\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputRefused, match=cause):
        run_job(tmp_path / source, tmp_path / output, restart=restart, input_format="csv")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_ctrl_c_while_the_engine_loads_leaves_nothing(tmp_path: Path, source: Path) -> None:
    class Loading(FunctionEngine):
        @property
        def spec(self) -> EngineSpec:
            raise KeyboardInterrupt

        @spec.setter
        def spec(self, _: EngineSpec) -> None:
            pass

    with pytest.raises(Interrupted, match="after 0 rows"):
        run_job(source, tmp_path / "out", engine=Loading(upper))
    assert names(tmp_path) == {"in.csv"}


def test_ctrl_c_at_any_line_of_the_start_leaves_nothing(tmp_path: Path, source: Path) -> None:
    lines = 0
    while _stopped_at_line(lines + 1, source, tmp_path / "out"):
        lines += 1
        assert names(tmp_path) == {"in.csv"}, lines
    assert lines > 20
    assert (tmp_path / "out").exists()


def _stopped_at_line(number: int, source: Path, output: Path) -> bool:
    """Whether a job got as far as this line, counted in `STARTING`, in which it was interrupted."""
    left = number

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code not in STARTING:
            return None
        left -= event == "line"
        if left == 0:
            left = -1
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_job(source, output)
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


def test_damaged_parquet_file_fails_the_job(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", texts(f"text {n}" for n in range(5000)))
    data = bytearray(source.read_bytes())
    data[20:2000] = b"\xaa" * 1980
    source.write_bytes(data)
    with pytest.raises(InputInvalid, match="cannot be read as Parquet"):
        run_job(source, tmp_path / "out.csv")
    assert names(tmp_path) == {"in.parquet"}


@pytest.mark.parametrize(
    ("column", "cause"), [({"nope": "text"}, "no column `nope`"), ({"text": "txet"}, "the model has no column `txet`")]
)
def test_mapping_of_unknown_columns_is_rejected(
    tmp_path: Path, source: Path, column: dict[str, str], cause: str
) -> None:
    with pytest.raises(InputInvalid, match=cause) as caught:
        run_job(source, tmp_path / "out", column=column, signature=TEXT)
    assert "=text" in caught.value.remedy


def test_column_that_the_model_needs_is_not_suggested_for_another(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"width a": "1", "width b": "2", "label": "x"}])
    columns = [{"type": "double", "name": name, "required": True} for name in ("width a", "width b", "width c")]
    with pytest.raises(InputInvalid, match="no column `width c`") as caught:
        run_job(source, tmp_path / "out", signature=Signature.parse({"inputs": json.dumps(columns)}))
    assert caught.value.remedy.endswith("use --column 'INPUT=width c'")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xlsx"},
        {"input_format": "tsv"},
        {"fail_on_quarantine": 101},
        {"budget": 0},
        {"window": 0},
        {"column": {"a": "x", "b": "x"}},
    ],
)
def test_invalid_options_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(WrongUsage):
        ScoreOptions(**options)


def test_format_that_contradicts_the_file_name_is_rejected(tmp_path: Path, source: Path) -> None:
    with pytest.raises(WrongUsage, match=r"out\.csv is csv, not parquet"):
        run_job(source, tmp_path / "out.csv", format="parquet")
    run_job(source, tmp_path / "out", format="parquet")
    assert (tmp_path / "out/part-00000.parquet").exists()


def test_input_format_overrides_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("text\na\n")
    assert run_job(tmp_path / "in.txt", tmp_path / "out", input_format="csv").rows_ok == 1


def test_column_pairs_are_parsed() -> None:
    assert parse_columns(["review=text", "a=b=c"]) == {"review": "text", "a=b": "c"}
    for wrong in (["text"], ["=text"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(WrongUsage):
            parse_columns(wrong)


def test_runners_are_looked_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner("local") is local.run
    assert RUNNERS["spark"] == "likewise.targets.spark.runner:run"
    with pytest.raises(WrongUsage, match="dask") as caught:
        runner("dask")
    assert "local, spark" in caught.value.remedy
    entry = EntryPoint("dask", "likewise.batch.local:run", GROUP)
    monkeypatch.setattr("likewise.batch.runners.entry_points", lambda group: [entry] if group == GROUP else [])
    assert runner("dask") is local.run


def test_runner_gets_the_job_without_loading_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ScoreJob] = []
    monkeypatch.setitem(RUNNERS, "spy", f"{__name__}:spy")

    def spy(job: ScoreJob) -> JobReport:
        seen.append(job)
        return JobReport(job.bundle, 0, 0, 0, 0, "", 0.0, 0)

    monkeypatch.setattr(f"{__name__}.spy", spy, raising=False)
    model = ModelSpec("sha256:b", tmp_path, engine="torch", precision="fp32", trust=True)
    options = ScoreOptions(runner="spy", master="local[2]", runner_conf={"a": "b"})
    score(LazyEngine(lambda: pytest.fail("loaded")), "sha256:b", TEXT, "table:sales", "out", options, model=model)
    (job,) = seen
    assert (job.source, job.output, job.model, job.options) == ("table:sales", Path("out"), model, options)


@pytest.mark.parametrize("options", [{"master": "local[*]"}, {"runner_conf": {"spark.x": "1"}}])
def test_local_runner_rejects_spark_options(tmp_path: Path, source: Path, options: dict[str, object]) -> None:
    with pytest.raises(WrongUsage, match="local runner"):
        run_job(source, tmp_path / "out", **options)
    assert names(tmp_path) == {"in.csv"}


@pytest.mark.parametrize("output", ["s3://bucket/out", "s3://bucket/out.csv", Path("s3://bucket/out"), "gs://b/o"])
def test_url_as_output_is_rejected(source: Path, output: str) -> None:
    with pytest.raises(OutputRefused, match="local folders only"):
        run_job(source, output)


def test_compressed_output_is_rejected(tmp_path: Path, source: Path) -> None:
    with pytest.raises(WrongUsage, match="compressed output is not supported"):
        run_job(source, tmp_path / "out.csv.gz")


@pytest.mark.parametrize(
    ("output", "nearest"),
    [("x.xlsx", "x.csv"), ("x.json", "x.jsonl"), ("x.jsn", "x.jsonl"), ("x.parq", "x.parquet"), ("v1.2", "v1.csv")],
)
def test_unknown_suffix_of_a_file_is_rejected_with_the_nearest(
    tmp_path: Path, source: Path, output: str, nearest: str
) -> None:
    with pytest.raises(WrongUsage, match=r"jobs write \.csv, \.jsonl, \.parquet files") as refused:
        run_job(source, str(tmp_path / output))
    assert f"-o {tmp_path / nearest}, or -o {tmp_path / output}/ for a folder" in refused.value.remedy
    assert names(tmp_path) == {"in.csv"}
    run_job(source, f"{tmp_path / output}/")
    assert (tmp_path / output / "part-00000.csv").is_file()
    run_job(source, str(tmp_path / output), restart=True)  # an existing folder
    with pytest.raises(WrongUsage, match="ends in a slash"):
        run_job(source, f"{tmp_path}/out.csv/")


def test_conf_pairs_are_parsed() -> None:
    assert parse_conf(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=b", "a=c"]):
        with pytest.raises(WrongUsage):
            parse_conf(wrong)


def test_null_among_the_numbers_of_json_lines_is_nan_without_a_signature(tmp_path: Path) -> None:
    rows = [{"x": 1, "y": "a"}, {"x": None, "y": "b"}, {"y": "c"}, {"x": 2.5, "y": "d"}]
    source = write(tmp_path / "in.jsonl", rows)
    run_job(source, tmp_path / "out.jsonl", predict=lambda row: repr(row.values), signature=Signature(), window=1)
    assert [each["cause"] for each in quarantined(tmp_path / "out.jsonl")] == []
    predicted = [row["predictions"] for row in read(tmp_path / "out.jsonl")]
    assert predicted == ["(1.0, 'a')", "(nan, 'b')", "('c',)", "(2.5, 'd')"]
