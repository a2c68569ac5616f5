"""The quarantine: failing rows are counted and explained, and do not affect other rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.batch.scoring import UNSIGNED, FunctionEngine, names, quarantined, read, run_job, texts, upper, write

from likewise.batch import reasons
from likewise.batch.formats import Chunk
from likewise.batch.quarantine import entries, line
from likewise.batch.values import as_some_json
from likewise.core.errors import InputInvalid, ModelFailed, ModelRaised, NothingScored, RowRefused, TooManyQuarantined
from likewise.core.items import Row
from likewise.core.signature import Signature

ROWS = 1000
BAD = frozenset(range(37, ROWS, 100))  # one row in a hundred
SUFFIXES = ["csv", "jsonl", "parquet"]


def fails_on_marker(row: Row) -> object:
    if "fail" in str(row.get("text")):
        raise ZeroDivisionError("fail")
    return upper(row)


def with_bad(path: Path, text: bytes | None) -> Path:
    """Write ROWS rows, the BAD ones with `text`, as raw bytes in the format of the suffix."""
    values = [text if n in BAD else b"fine %d" % n for n in range(ROWS)]
    if path.suffix == ".parquet":
        array = pa.array(values, pa.binary())
        array = pa.StringArray.from_buffers(len(array), array.buffers()[1], array.buffers()[2], array.buffers()[0])
        pq.write_table(pa.table({"n": range(ROWS), "text": array}), path)
    elif path.suffix == ".jsonl":
        cells = [b"null" if value is None else b'"%s"' % value for value in values]
        path.write_bytes(b"".join(b'{"n": %d, "text": %s}\n' % (n, cell) for n, cell in enumerate(cells)))
    else:
        path.write_bytes(b"n,text\n" + b"".join(b'%d,"%s"\n' % (n, value or b"") for n, value in enumerate(values)))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("text", "valid", "cause"),
    [
        (None, False, "the text is null"),
        (b"caf\xe9 \xff", False, "is not valid Unicode: byte 0xe9"),
        (b"lone \xed\xa0\x80", False, "is not valid Unicode"),
        (b"fail", False, "ZeroDivisionError: fail"),
        (b"x" * 1_000_000, True, ""),
        (b"nul \x00 in it", True, ""),
    ],
    ids=["null", "invalid UTF-8", "lone surrogate", "raises", "1 MB", "NUL"],
)
def test_bad_rows_do_not_affect_other_rows(
    tmp_path: Path, suffix: str, text: bytes | None, valid: bool, cause: str
) -> None:
    if suffix == "csv" and text is None:
        valid = True  # CSV has no null: an empty field of a string column is the empty string
    if suffix == "jsonl" and text == b"nul \x00 in it":
        text = b"nul \\u0000 in it"  # as JSON writes it
    if suffix == "jsonl" and text == b"lone \xed\xa0\x80":
        text = b"lone \\ud800"
    source = with_bad(tmp_path / f"in.{suffix}", text)
    report = run_job(source, tmp_path / f"out.{suffix}", predict=fails_on_marker, budget=4096)
    failed = set() if valid else BAD
    rows = read(tmp_path / f"out.{suffix}")
    assert [int(row["n"]) for row in rows] == [n for n in range(ROWS) if n not in failed]
    assert all(row["predictions"] == f"<{row['text']}>".upper() for row in rows)
    assert (report.rows_in, report.rows_ok, report.rows_quarantined) == (ROWS, ROWS - len(failed), len(failed))
    bad = quarantined(tmp_path / f"out.{suffix}")
    assert {row["row"] - 1 for row in bad} == failed
    assert all(
        row["code"] in ("ROW_REFUSED", "MODEL_RAISED") and cause in row["cause"] and row["remedy"] for row in bad
    )


def test_lone_surrogates_are_quarantined(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [r'{"text": "\ud83d\ude00"}', r'{"text": "a\uD800b"}', r'{"text": "ok", "k\udfff": 1}', '{"text": "ok"}']
    source.write_text("\n".join(lines))
    report = run_job(source, tmp_path / "out.jsonl")
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["😀", "ok"]
    assert report.rows_quarantined == 2
    first = quarantined(tmp_path / "out.jsonl")[0]
    assert "lone surrogate U+D800" in first["cause"]
    assert json.loads(first["columns"]) == {"text": "a\ud800b"}


def test_quarantine_has_position_and_bytes_of_each_row(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b'n,text\n1,"two\nlines"\n\n2,caf\xe9\n3,a,b\n4,"q"x\n5,fine\n6,"open')
    run_job(source, tmp_path / "out")
    bad = quarantined(tmp_path / "out")
    assert [(row["file"], row["row"], row["line"], row["code"]) for row in bad] == [
        ("in.csv", 2, 5, "ROW_REFUSED"),
        ("in.csv", 3, 6, "INPUT_INVALID"),
        ("in.csv", 4, 7, "INPUT_INVALID"),
        ("in.csv", 6, 9, "INPUT_INVALID"),
    ]
    columns: Mapping[str, str] = json.loads(bad[0]["columns"])
    assert columns["text"].encode(errors="surrogateescape") == b"caf\xe9"
    assert json.loads(bad[1]["columns"]) == {"n": "3", "text": "a", "": ["b"]}
    assert "3 fields, more than the 2 of the header" in bad[1]["cause"]
    assert [json.loads(row["columns"]) for row in bad[2:]] == [{"": '4,"q"x'}, {"": '6,"open'}]
    assert [row["n"] for row in read(tmp_path / "out/part-00000.csv")] == ["1", "5"]


def test_unclosed_quote_affects_only_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'text\r\nok1\r\n"open quote\r\nrow3\r\n\r\n"two\nlines"\r\nrow5\r\n"open')
    report = run_job(tmp_path / "in.csv", tmp_path / "out.csv", window=2)
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["ok1", "row3", "", "two\nlines", "row5"]
    assert report.rows_in == 7
    bad = quarantined(tmp_path / "out.csv")
    assert [(row["row"], row["line"], json.loads(row["columns"])) for row in bad] == [
        (2, 3, {"": '"open quote'}),
        (7, 9, {"": '"open'}),
    ]


def test_invalid_json_lines_are_quarantined_with_line_and_row_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likewise.batch.formats.json_lines.FIRST_ROWS", 2)
    source = tmp_path / "in.jsonl"
    lines = [
        '{"text": "a"}',
        "",
        "{oops",
        "[1]",
        "[" * 100_000,
        '{"n": 1}',
        '{"text": "b", "predictions": 1}',
        '{"text": "c"}',
    ]
    source.write_text("\n".join(lines))
    report = run_job(source, tmp_path / "out.csv")
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["a", "c"]
    bad = quarantined(tmp_path / "out.csv")
    assert [row["line"] for row in bad] == [3, 4, 5, 6, 7]
    assert [row["row"] for row in bad] == [2, 3, 4, 5, 6]
    assert list(read(tmp_path / "out.csv")[0]) == ["text", "n", "predictions"]
    assert "not JSON" in bad[0]["cause"]
    assert "has no column `text`" in bad[3]["cause"]
    assert report.rows_in == report.rows_ok + report.rows_quarantined == 7


def test_rows_that_fail_in_prepare_are_isolated(tmp_path: Path) -> None:
    class Picky(FunctionEngine):
        def prepare(self, items):  # type: ignore[no-untyped-def]
            if any(item.get("text") == "t7" for item in items):
                raise UnicodeError("no sevens")
            return super().prepare(items)

    source = write(tmp_path / "in.csv", texts(f"t{n}" for n in range(20)))
    assert run_job(source, tmp_path / "out.csv", engine=Picky(upper)).rows_ok == 19
    assert "no sevens" in quarantined(tmp_path / "out.csv")[0]["cause"]


def test_errors_of_the_engine_keep_code_cause_and_remedy(tmp_path: Path) -> None:
    def refuse(row: Row) -> object:
        raise InputInvalid("too sad", remedy="cheer up")

    source = write(tmp_path / "in.csv", texts(["a"]))
    assert run_job(source, tmp_path / "out.csv", predict=refuse).rows_ok == 0
    bad = quarantined(tmp_path / "out.csv")[0]
    assert (bad["code"], bad["cause"], bad["remedy"]) == ("INPUT_INVALID", "too sad", "cheer up")


def test_model_that_fails_on_all_rows_fails_the_job(tmp_path: Path) -> None:
    def broken(row: Row) -> object:
        raise RuntimeError("no weights")

    source = write(tmp_path / "in.csv", texts(f"t{n}" for n in range(150)))
    with pytest.raises(ModelFailed, match="no weights"):
        run_job(source, tmp_path / "out.csv", predict=broken)
    assert names(tmp_path) == {"in.csv"}


@pytest.mark.parametrize(("percent", "fails"), [(0, True), (0.9, True), (1, False), (100, False)])
def test_too_many_quarantined_rows_fail_the_job_after_writing(tmp_path: Path, percent: float, fails: bool) -> None:
    source = with_bad(tmp_path / "in.jsonl", None)
    if fails:
        with pytest.raises(TooManyQuarantined, match="10 of 1000 rows"):
            run_job(source, tmp_path / "out", fail_on_quarantine=percent)
    else:
        run_job(source, tmp_path / "out", fail_on_quarantine=percent)
    assert json.loads((tmp_path / "out/_likewise.json").read_text())["rows_quarantined"] == 10
    assert len(read(tmp_path / "out/part-00000.jsonl")) == 990


def test_invalid_text_in_nested_and_unused_parquet_columns(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"\xff", b"ok"], pa.binary())
    bad = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    table = pa.table({"text": ["a", "b", "c"], "s": pa.StructArray.from_arrays([bad], ["inner"])})
    pq.write_table(table, tmp_path / "in.parquet")
    run_job(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["a", "c"]
    assert "column `s`" in quarantined(tmp_path / "out.jsonl")[0]["cause"]


def test_binary_text_is_decoded_for_a_string_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [b"caf\xc3\xa9", b"\xff"]}), tmp_path / "in.parquet")
    report = run_job(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet") == [{"text": b"caf\xc3\xa9", "predictions": "<CAFÉ>"}]
    assert report.rows_quarantined == 1


def test_date_outside_the_range_of_python_is_quarantined(tmp_path: Path) -> None:
    dates = pa.array([0, 10_000_000], pa.date32())
    pq.write_table(pa.table({"text": ["a", "b"], "day": dates}), tmp_path / "in.parquet")
    report = run_job(tmp_path / "in.parquet", tmp_path / "out.parquet", signature=UNSIGNED)
    assert (report.rows_ok, report.rows_quarantined) == (1, 1)


def test_exceptions_of_the_model_have_their_own_code(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(["fail", "b"]))
    run_job(source, tmp_path / "out.csv", predict=fails_on_marker)
    assert quarantined(tmp_path / "out.csv")[0]["code"] == ModelRaised.code


class Odd:
    """A value that no format knows, and that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.array([[1.5], [2.5]]), [[1.5], [2.5]]),
        (1j, "1j"),
        ({b"k": [1, 1j]}, {"b'k'": [1, "1j"]}),
        ({("a", 1): 2}, {"('a', 1)": 2}),
        ([math.nan, {1}], [None, "{1}"]),
        (10**5000, "<int>"),
        (Odd(), "<Odd>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_quarantined(value: object, expected: object) -> None:
    chunk = Chunk("in.parquet", 1, [{"n": 1, "v": value}], {}, None, None, 0)
    (refused,) = entries(chunk, {0: RowRefused("a cause", remedy="a remedy")})
    columns = json.loads(json.loads(line(refused))["columns"])
    assert columns["n"] == 1
    assert columns["v"] == expected
    assert json.loads(as_some_json({"v": value}))["v"] == columns["v"]


def test_a_value_nested_too_deeply_for_json_is_quarantined_as_text() -> None:
    value: object = 1j
    for _ in range(500):
        value = [value]
    assert as_some_json(value).count("[") > 100


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_input_values_without_a_json_form_are_copied_as_text(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"text": ["a"], "half": pa.array([np.float16(0.5)]), "t": pa.array([1], pa.duration("s"))})
    pq.write_table(table, tmp_path / "in.parquet")
    assert run_job(tmp_path / "in.parquet", tmp_path / f"out.{suffix}").rows_ok == 1
    (row,) = read(tmp_path / f"out.{suffix}")
    assert float(str(row["half"])) == 0.5
    assert float(str(row["t"])) == 1


# --- reasons ----------------------------------------------------------------------------------------------------------


def refusing(row: Row) -> object:
    number = int(str(row.get("text"))[1:])
    if number % 2:
        raise ValueError(f"cannot parse {number!r} in 't{number}'")
    if number % 10 == 0:
        raise KeyError("weights")
    return upper(row)


def test_report_has_the_reasons_with_counts_and_first_examples(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(f"t{n}" for n in range(100)))
    report = run_job(source, tmp_path / "out.csv", predict=refusing, window=30)
    assert report.quarantine == str(tmp_path / "out.csv.quarantine.parquet")
    weights, parse = sorted(report.reasons, key=lambda reason: int(reason["rows"]))
    assert (weights["rows"], parse["rows"]) == (10, 50)
    assert (parse["code"], len(parse["examples"])) == ("MODEL_RAISED", 3)
    first = {"file": "in.csv", "row": 2, "line": 3, "cause": "the model raised ValueError: cannot parse 1 in 't1'"}
    assert parse["examples"][0] == first
    lines = reasons.described(report.reasons, report.rows_quarantined)
    assert lines[0] == f"50 rows: MODEL_RAISED: {first['cause']} (in.csv row 2, line 3; row 4; row 6; …)"
    stored = json.loads((tmp_path / "out.csv.likewise.json").read_text())
    assert stored["reasons"] == report.reasons
    assert stored["quarantine"] == "out.csv.quarantine.parquet"


def test_reasons_of_parts_add_up_and_further_ones_are_counted() -> None:
    def quarantined_rows(words: str) -> list[dict[str, object]]:
        return [
            {"code": "ROW_REFUSED", "cause": f"{word} is missing", "remedy": "", "file": "f", "row": n, "line": None}
            for n, word in enumerate(words, 1)
        ]

    one = reasons.add((), quarantined_rows("aabc"))
    together = reasons.add(one, quarantined_rows("cdefghijklm"))
    assert [reason["rows"] for reason in together] == [2, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert one[0]["rows"] == 2  # unchanged
    assert reasons.described(together, 15)[-1] == "3 rows: other reasons"
    assert reasons.described((), 0) == []


@pytest.mark.parametrize("rows", [0, 20])
def test_job_without_any_prediction_fails_after_writing(tmp_path: Path, rows: int) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"t{2 * n + 1}\n" for n in range(rows)))
    with pytest.raises(NothingScored) as failed:
        run_job(source, tmp_path / "out.csv", predict=refusing, allow_empty=False)
    assert "--allow-empty" in failed.value.remedy
    assert failed.value.details["rows_quarantined"] == rows
    assert ("has no rows" in failed.value.cause) == (rows == 0)
    if rows:
        assert "20 rows: MODEL_RAISED: the model raised ValueError" in failed.value.cause
        assert str(tmp_path / "out.csv.quarantine.parquet") in failed.value.cause
    assert read(tmp_path / "out.csv") == []
    report = run_job(source, tmp_path / "out.csv", predict=refusing, restart=True, allow_empty=True)
    assert (report.rows_ok, report.rows_quarantined) == (0, rows)


def test_remedy_names_the_optional_columns_that_the_model_may_need(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(["one", "two"]))
    inputs = [{"name": "text", "type": "string"}, {"name": "unit", "type": "string", "required": False}]
    signature = Signature.parse({"inputs": inputs})
    with pytest.raises(NothingScored) as failed:
        run_job(source, tmp_path / "out.csv", predict=refusing, signature=signature, allow_empty=False)
    assert "(the model may need the optional column `unit`), and run it again" in failed.value.remedy
