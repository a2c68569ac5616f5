"""INPUT of batch jobs: files, folders, globs, compressed text, and several files in one job."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.batch.scoring import UNSIGNED, quarantined, read, run_job, texts, upper, write

from likewise.batch.listing import _matches, list_files
from likewise.batch.s3 import plain_errors
from likewise.core.errors import InputInvalid, InputNotFound, LikewiseError, WrongUsage
from likewise.core.items import Row

SUFFIXES = ["csv", "jsonl", "parquet"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data files in folders, and other files."""
    data = tmp_path / "data"
    for name in ("b.csv", "a.csv", "sub/c.csv", "_tmp/d.csv", ".git/e.csv", "_SUCCESS", ".a.csv.crc", "notes.txt"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write(data / name, texts([Path(name).stem]))
    return data


def shorts(source: str) -> list[str]:
    return [file.short for file in list_files(source, any_suffix=False)]


def test_folder_lists_data_files_by_name(folder: Path) -> None:
    assert shorts(str(folder)) == ["a.csv", "b.csv", "sub/c.csv"]
    assert [f.short for f in list_files(str(folder), any_suffix=True)] == ["a.csv", "b.csv", "notes.txt", "sub/c.csv"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "sub/c.csv"]),
        ("**", ["a.csv", "b.csv", "sub/c.csv"]),
        ("s*", ["sub/c.csv"]),
        ("su?/", ["sub/c.csv"]),
        ("_*/*.csv", []),
        ("_tmp/_*", []),
    ],
)
def test_globs_match_as_in_a_shell(folder: Path, pattern: str, expected: list[str]) -> None:
    if expected:
        assert shorts(f"{folder}/{pattern}") == expected
    else:
        with pytest.raises(InputNotFound, match="matches no data file"):
            shorts(f"{folder}/{pattern}")


@pytest.mark.parametrize(
    ("key", "pattern", "matches"),
    [
        ("a/b.csv", "a/*.csv", True),
        ("a/x/b.csv", "a/*.csv", False),
        ("a/x/b.csv", "a/**/*.csv", True),
        ("a/b.csv", "a/**/*.csv", True),
        ("a/b.csv", "**", True),
        ("a/bb.csv", "a/b?.csv", True),
        ("a/b.csv", "a", False),
        ("a", "a/b", False),
    ],
)
def test_keys_are_matched_part_by_part(key: str, pattern: str, matches: bool) -> None:
    assert _matches(key.split("/"), pattern.split("/")) is matches


def test_existing_file_with_glob_characters_in_its_name(tmp_path: Path) -> None:
    write(tmp_path / "a[1].csv", texts(["x"]))
    assert shorts(str(tmp_path / "a[1].csv")) == ["a[1].csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("out", SUFFIXES)
def test_several_files_are_scored_as_one_job(tmp_path: Path, suffix: str, out: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("2", "1", "3"):
        write(tmp_path / f"in/{name}.{suffix}", [{"n": f"{name}.{n}", "text": f"t{name}{n}"} for n in range(30)])

    def refuse(row: Row) -> object:
        if row.get("text") == "t20":
            raise ValueError("no")
        return upper(row)

    seen = []
    report = run_job(tmp_path / "in", tmp_path / f"out.{out}", refuse, window=7, progress=seen.append)
    assert (report.rows_in, report.rows_ok) == (90, 89)
    expected = [f"{name}.{n}" for name in "123" for n in range(30) if (name, n) != ("2", 0)]
    assert [row["n"] for row in read(tmp_path / f"out.{out}")] == expected
    assert [(row["file"], row["row"]) for row in quarantined(tmp_path / f"out.{out}")] == [(f"2.{suffix}", 1)]
    assert seen[-1].fraction == 1.0
    assert [a.fraction for a in seen] == sorted(a.fraction for a in seen)


def test_columns_may_have_another_order(tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        write(tmp_path / f"1.{suffix}", [{"n": "1", "text": "a"}])
        write(tmp_path / f"2.{suffix}", [{"text": "b", "n": "2"}])
        run_job(tmp_path / f"?.{suffix}", tmp_path / f"out.{suffix}")
        assert read(tmp_path / f"out.{suffix}") == [
            {"n": "1", "text": "a", "predictions": "<A>"},
            {"n": "2", "text": "b", "predictions": "<B>"},
        ]


def test_json_lines_files_may_differ_in_columns_the_model_does_not_need(tmp_path: Path) -> None:
    write(tmp_path / "1.jsonl", [{"text": "a", "n": 1}])
    write(tmp_path / "2.jsonl", [{"text": "b", "m": 2.5}])
    run_job(tmp_path / "?.jsonl", tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet")[1] == {"text": "b", "n": None, "m": 2.5, "predictions": "<B>"}
    write(tmp_path / "3.jsonl", [{"review": "c"}])
    with pytest.raises(InputInvalid, match=r"3\.jsonl has no column `text`"):
        run_job(tmp_path / "?.jsonl", tmp_path / "out2.parquet")


@pytest.mark.parametrize(
    ("second", "rows", "cause"),
    [
        ("2.csv", [{"text": "b", "n": "2"}], r"2\.csv has a column `n`, but .*1\.csv does not"),
        ("2.csv", [{"n": "2"}], r"1\.csv has a column `text`, but .*2\.csv does not"),
        ("2.jsonl", [{"text": "b"}], r"1\.csv is csv and .*2\.jsonl is jsonl"),
        ("2.csv", [{"text": "b", "predictions": "2"}], r"2\.csv already has a column `predictions`"),
    ],
)
def test_incompatible_files_are_rejected(
    tmp_path: Path, second: str, rows: list[dict[str, object]], cause: str
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/1.csv", texts(["a"]))
    write(tmp_path / "in" / second, rows)
    with pytest.raises(InputInvalid, match=cause):
        run_job(tmp_path / "in", tmp_path / "out")


def test_parquet_files_with_different_types_are_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": ["1"]}), tmp_path / "2.parquet")
    with pytest.raises(InputInvalid, match=r"`n` is int64 in .*1\.parquet, but string in .*2\.parquet"):
        run_job(tmp_path / "*.parquet", tmp_path / "out")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string_view(), ["a", None, "c"]),
        (pa.binary_view(), [b"\xff", None, b"c"]),
        (pa.large_string(), ["a", None, "c"]),
        (pa.list_(pa.string_view()), [["a"], None, ["b", "c"]]),
        (pa.list_view(pa.string_view()), [["a"], None, ["b", "c"]]),
        (pa.large_list_view(pa.int64()), [[1], None, [2, 3]]),
        (pa.struct([("x", pa.string_view())]), [{"x": "a"}, None, {"x": "c"}]),
        (pa.map_(pa.string_view(), pa.binary_view()), [[("k", b"v")], None, []]),
    ],
    ids=str,
)
def test_parquet_may_have_views_and_large_types(tmp_path: Path, kind: Any, values: list[Any], suffix: str) -> None:
    table = pa.table({"a": pa.array(values, kind), "text": ["x", None, "z"]})
    pq.write_table(table, tmp_path / "in.parquet")
    report = run_job(tmp_path / "in.parquet", tmp_path / f"out.{suffix}", lambda row: row.get("text"), window=2)
    assert (report.rows_in, report.rows_ok) == (3, 2)
    if suffix == "parquet":
        out = pq.read_table(tmp_path / "out.parquet")
        assert out["a"].to_pylist() == [values[0], values[2]]
        assert out["predictions"].to_pylist() == ["x", "z"]


def test_parquet_with_duplicate_column_is_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputInvalid, match="two columns are named 'text'"):
        run_job(tmp_path / "in.parquet", tmp_path / "out", signature=UNSIGNED)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_gzip_input_gives_the_same_output(tmp_path: Path, suffix: str) -> None:
    plain = write(tmp_path / f"in.{suffix}", texts(f"text {n}" for n in range(500)))
    packed = tmp_path / f"zipped.{suffix}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    seen = []
    run_job(plain, tmp_path / "a")
    run_job(packed, tmp_path / "b", progress=seen.append, window=50)
    part = f"part-00000.{suffix}"
    assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()
    assert seen[-1].fraction == 1.0


@pytest.mark.parametrize("cut", [5, 200])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_incomplete_gzip_file_is_rejected(tmp_path: Path, suffix: str, cut: int) -> None:
    plain = write(tmp_path / f"in.{suffix}", texts(f"text {n}" for n in range(500)))
    (tmp_path / f"cut.{suffix}.gz").write_bytes(gzip.compress(plain.read_bytes())[:cut])
    (tmp_path / f"none.{suffix}.gz").write_bytes(plain.read_bytes())
    for name in ("cut", "none"):
        with pytest.raises(InputInvalid, match="not a complete gzip file"):
            run_job(tmp_path / f"{name}.{suffix}.gz", tmp_path / "out")


def test_gzipped_parquet_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "in.parquet.gz").write_bytes(b"x")
    with pytest.raises(WrongUsage, match="unknown file format"):
        run_job(tmp_path / "in.parquet.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "error"),
    [("no.csv", InputNotFound), ("no/*.csv", InputNotFound), ("", InputNotFound), ("/dev/null", InputNotFound)],
)
def test_missing_input_is_reported(tmp_path: Path, source: str, error: type[LikewiseError]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error) as caught:
        run_job(tmp_path / (source or "empty"), tmp_path / "out")
    assert caught.value.remedy


@pytest.mark.parametrize("address", ["s3://", "s3:///key", "s3://KEY:SECRET@bucket/key"])
def test_invalid_s3_addresses_are_rejected(tmp_path: Path, address: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        run_job(address, tmp_path / "out")
    assert "SECRET" not in caught.value.cause


def test_credentials_are_removed_from_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with pytest.raises(FileNotFoundError, match="signed with …, refused"), plain_errors():
        raise FileNotFoundError("signed with hush, refused")


def test_rows_with_different_keys_stay_apart_and_are_refused_where_each_row_has_all_columns(tmp_path: Path) -> None:
    rows = 6000
    lines = "".join(f'{{"text": "a", "k{row}": 1}}\n' for row in range(rows))
    (tmp_path / "in.jsonl").write_text(lines)
    report = run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", signature=UNSIGNED)
    assert (report.rows_in, report.rows_quarantined) == (rows, 0)
    with pytest.raises(InputInvalid, match="more than 5,000 different columns") as error:
        run_job(tmp_path / "in.jsonl", tmp_path / "out.parquet", signature=UNSIGNED)
    assert "--format jsonl" in error.value.remedy
