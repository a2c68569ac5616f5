"""Types of CSV columns without a signature: the same over HTTP and in jobs, and as `pandas.read_csv` infers them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.batch.scoring import UNSIGNED, FunctionEngine, names, quarantined, read, run_job, write

from likewise.core.engine import Work
from likewise.core.errors import Interrupted
from likewise.core.isolation import StopSignal
from likewise.core.items import Item, Row
from likewise.core.signature import Signature
from likewise.core.text_types import TextType, typed
from likewise.wire import decode

CELLS = ["1", "-7", " 2 ", "0.5", "1e3", "true", "False", "x", "", "NA", "NaN", "007", "9007199254740993", "1_0", "+5"]
ANY = Signature.parse({"inputs": [{"type": "any"}]})


def kind(*values: str) -> str:
    column = TextType()
    for value in values:
        column.add([value])
    return column.kind


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "007", "+5", " 3 "], "long"),
        (["1", "", "NA"], "double"),
        (["9007199254740993", "NA"], "long"),
        (["9" * 30, "1"], "long"),
        (["1", "2.5", "1e3", "inf"], "double"),
        (["true", "FALSE", "True", ""], "boolean"),
        (["true", "1"], "string"),
        (["1", "x"], "string"),
        (["1_000"], "string"),
        (["", "NA", "null"], "double"),
        ([], "double"),
    ],
)
def test_the_type_of_a_column_is_that_of_all_its_values(values: list[str], expected: str) -> None:
    assert kind(*values) == kind(*reversed(values)) == expected


@given(st.lists(st.sampled_from(CELLS), min_size=1, max_size=6))
@example(["1", "NA"])
@example(["true", "", "false"])
@settings(deadline=None)
def test_columns_have_the_values_that_pandas_reads(values: list[str]) -> None:
    """Except for text, in which nothing is missing, and for integers that pandas changes."""
    of = kind(*values)
    ours = [None if pd.isna(value) else value for value in (typed(value, of) for value in values)]
    frame = pd.read_csv(io.StringIO("v,w\n" + "".join(f"{value},x\n" for value in values)))
    theirs = [None if pd.isna(value) else value for value in frame["v"].tolist()]
    if of == "string":
        assert ours == values
    elif frame["v"].dtype == "float64" and of == "long":
        assert [None if value is None else float(value) for value in ours] == theirs
    else:
        assert ours == theirs
        assert [type(value) for value in ours] == [type(value) for value in theirs]


@given(st.lists(st.tuples(st.sampled_from(CELLS), st.sampled_from(CELLS)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_job_reads_a_csv_as_a_request_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("csv")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b"), *rows])
    (tmp_path / "in.csv").write_text(text.getvalue(), newline="")
    engine = Spy()
    run_job(tmp_path / "in.csv", tmp_path / "o.jsonl", engine=engine, signature=UNSIGNED, window=2)
    table = decode(text.getvalue().encode(), "text/csv", UNSIGNED).table
    assert repr(engine.seen) == repr([Row(table.columns, row) for row in table.rows])


class Spy(FunctionEngine):
    """Remembers the rows; a null is a value like any other."""

    def __init__(self) -> None:
        super().__init__(self._see, pure=False)
        self.seen: list[Row] = []

    def _see(self, row: Row) -> int:
        self.seen.append(row)
        return 0

    def _work(self, item: Item) -> Work:
        return Work(repr(item), 1, item)


def test_types_are_those_of_all_rows_of_all_files(tmp_path: Path) -> None:
    """An integer at the start of one file is text if the last row of another is."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/1.csv", [{"a": str(n), "b": str(n), "c": str(n)} for n in range(100)])
    write(tmp_path / "in/2.csv", [{"c": "0.5", "a": "x", "b": "7"}])
    seen: list[Row] = []
    report = run_job(tmp_path / "in", tmp_path / "out", lambda row: seen.append(row) or 0, signature=UNSIGNED, window=7)
    assert seen[0] == Row(("a", "b", "c"), ("0", 0, 0.0))
    assert Row(("c", "a", "b"), (0.5, "x", 7)) in seen
    assert report.input_types == {"a": "string", "b": "long", "c": "double"}
    assert json.loads((tmp_path / "out/_likewise.json").read_text())["input_types"] == report.input_types
    assert read(tmp_path / "out/part-00000.csv")[0] == {"a": "0", "b": "0", "c": "0", "predictions": "0"}


def test_rows_that_are_not_csv_do_not_decide_types(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'a,b\n1,2\n3\nx\xff,5\n4,"6\n')
    seen: list[Row] = []
    run_job(tmp_path / "in.csv", tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=UNSIGNED)
    assert seen == [Row(("a", "b"), (1, 2))]
    assert len(quarantined(tmp_path / "o.csv")) == 3


def test_other_formats_and_declared_columns_keep_their_types(tmp_path: Path) -> None:
    rows = [{"a": "1", "b": 2}, {"a": "3", "b": 4}]
    for suffix in ("jsonl", "parquet"):
        seen: list[Row] = []
        source = write(tmp_path / f"in.{suffix}", rows)
        report = run_job(source, tmp_path / f"o.{suffix}", lambda row: seen.append(row) or 0, signature=UNSIGNED)  # noqa: B023
        assert [(row.columns, row.values) for row in seen] == [(("a", "b"), ("1", 2)), (("a", "b"), ("3", 4))]
        assert report.input_types is None
    text = Signature.parse({"inputs": [{"name": "a", "type": "string"}]})
    seen = []
    report = run_job(
        write(tmp_path / "in.csv", rows), tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=text
    )
    assert (seen[0], report.input_types) == (Row(("a",), ("1",)), None)


def test_a_column_of_any_type_is_inferred_too(tmp_path: Path) -> None:
    seen: list[Row] = []
    source = write(tmp_path / "in.csv", [{"a": "1"}, {"a": "2.5"}])
    report = run_job(source, tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=ANY)
    assert seen == [Row(None, (1.0,)), Row(None, (2.5,))]
    assert report.input_types == {"a": "double"}


def test_an_interrupted_job_resumes_with_the_same_types(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"a": str(n)} for n in range(20)] + [{"a": "0.5"}])
    seen: list[Row] = []

    def stop(row: Row) -> object:
        if len(seen) == 12:
            raise StopSignal
        seen.append(row)
        return 0

    with pytest.raises(Interrupted):
        run_job(source, tmp_path / "o.csv", stop, signature=UNSIGNED, window=5)
    seen.clear()
    report = run_job(source, tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=UNSIGNED, window=5)
    assert seen == [Row(("a",), (float(n),)) for n in range(10, 20)] + [Row(("a",), (0.5,))]
    assert (report.rows_in, report.input_types) == (21, {"a": "double"})
    assert names(tmp_path) == {"in.csv", "o.csv", "o.csv.likewise.json", "o.csv.quarantine.parquet"}
