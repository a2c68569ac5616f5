"""Jobs over CSV files with and without a header: each line is a row, quarantined, or an error of the whole job."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch.scoring import TEXT, UNSIGNED, read, run_job, write

from likewise.batch import ScoreOptions
from likewise.core.errors import InputInvalid, LikewiseError, OutputRefused, WrongUsage
from likewise.core.isolation import StopSignal
from likewise.core.items import Row
from likewise.core.signature import Signature

PAIR = Signature.parse({"inputs": [{"name": "n", "type": "long"}, {"name": "text", "type": "string"}]})
OPTIONAL = Signature.parse({"inputs": [{"name": "text", "type": "string", "required": False}]})


def shown(row: Row) -> str:
    return repr((row.columns, row.values))


def scored(tmp_path: Path, content: str, signature: Signature, **more: object) -> list[dict[str, Any]]:
    """The rows of the output for an input file with this content."""
    (tmp_path / "in.csv").write_bytes(content.encode())
    report = run_job(tmp_path / "in.csv", tmp_path / "out.csv", shown, signature=signature, restart=True, **more)
    rows = read(tmp_path / "out.csv")
    assert report.rows_in == len(rows)
    return rows


def test_without_a_header_the_columns_are_the_models(tmp_path: Path) -> None:
    rows = scored(tmp_path, "1,a\n2,b\n3,c", PAIR, header="absent")
    assert [row["predictions"] for row in rows] == [
        repr((("n", "text"), pair)) for pair in ((1, "a"), (2, "b"), (3, "c"))
    ]
    assert [list(row) for row in rows] == [["n", "text", "predictions"]] * 3


def test_without_a_header_columns_are_numbered_if_the_model_names_none_or_they_are_assigned(tmp_path: Path) -> None:
    (first, second) = scored(tmp_path, "1,a\n2,b", UNSIGNED, header="absent")
    assert list(first) == ["0", "1", "predictions"]
    assert "'b'" in second["predictions"]
    rows = scored(tmp_path, "x,1,a\ny,2,b", PAIR, header="absent", column={"1": "n", "2": "text"})
    assert [row["predictions"] for row in rows] == [repr((("n", "text"), pair)) for pair in ((1, "a"), (2, "b"))]


def test_another_number_of_columns_is_an_error_and_the_remedy_helps(tmp_path: Path) -> None:
    with pytest.raises(
        InputInvalid, match="3 fields in its first line, but the model has the columns n, text"
    ) as caught:
        scored(tmp_path, "x,1,a\n", PAIR, header="absent")
    assert "--column 0=n" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "signature"),
    [("1,a\n2,b\n3,c\n", UNSIGNED), ("true\nfalse\n", UNSIGNED), ("1,a\n2,b\n", PAIR), ("a\nb\n", OPTIONAL)],
)
def test_a_first_line_that_is_a_row_is_an_error_and_both_remedies_help(
    tmp_path: Path, content: str, signature: Signature
) -> None:
    with pytest.raises(InputInvalid, match="the first line seems to be a row") as caught:
        scored(tmp_path, content, signature)
    assert "--header absent" in caught.value.remedy
    assert "--header present" in caught.value.remedy
    assert len(scored(tmp_path, content, signature, header="absent")) == content.count("\n")
    if signature is UNSIGNED:
        assert len(scored(tmp_path, content, signature, header="present")) == content.count("\n") - 1


@pytest.mark.parametrize("content", ["0,1\n5,6\n", "a,b\n5,6\n", ",a\n0,6\n"])
def test_a_first_line_of_names_is_a_header(tmp_path: Path, content: str) -> None:
    assert len(scored(tmp_path, content, UNSIGNED)) == 1


def test_a_number_is_a_name_if_another_field_is_a_known_one(tmp_path: Path) -> None:
    assert len(scored(tmp_path, "text,2025\na,1\n", TEXT)) == 1
    assert len(scored(tmp_path, "2024,2025\na,1\n", TEXT, column={"2024": "text"})) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_empty_line_is_a_row_if_there_is_one_column(tmp_path: Path, end: str) -> None:
    def texts(content: str, **more: object) -> list[str]:
        return [row["text"] for row in scored(tmp_path, content.replace("\n", end), TEXT, **more)]

    assert texts("text\n\na\n\nb") == ["", "a", "", "b"]
    assert texts("\ufeff\na\n\nb\n", header="absent") == ["", "a", "", "b"]
    assert texts("\n\n", header="absent") == ["", ""]
    pairs = scored(tmp_path, "\nn,text\n\n1,a\n\n2,b\n\n".replace("\n", end), PAIR)
    assert [row["n"] for row in pairs] == ["1", "2"]


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="empty"):
        scored(tmp_path, "", TEXT, header="absent")


def test_the_header_is_an_option_of_csv(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(WrongUsage, match="not CSV"):
        run_job(tmp_path / "in.jsonl", tmp_path / "out", header="absent")
    assert run_job(tmp_path / "in.jsonl", tmp_path / "out", header="present").rows_ok == 1
    with pytest.raises(WrongUsage, match="header is 'maybe'"):
        ScoreOptions(header="maybe")


def test_a_job_does_not_resume_with_another_header(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\nb\nc\n")
    stopped: list[object] = []

    def stop(progress: object) -> None:
        stopped.append(progress)
        if len(stopped) > 3:
            raise StopSignal

    with pytest.raises(LikewiseError, match="rows are done"):
        run_job(tmp_path / "in.csv", tmp_path / "out", shown, window=1, progress=stop, header="absent")
    with pytest.raises(OutputRefused, match="--header was absent and is now present"):
        run_job(tmp_path / "in.csv", tmp_path / "out", shown, window=1, header="present", column={"a": "text"})


CELLS = st.text(st.sampled_from(['"', ",", "\n", "\r", " ", "1", "a"]), max_size=3)


@settings(deadline=None, max_examples=40)
@given(
    table=st.integers(1, 2).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
    window=st.integers(1, 3),
)
def test_each_row_of_a_file_without_a_header_is_in_the_output(
    table: list[list[str]], quoting: Any, end: str, window: int
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=quoting).writerows(table)
    if quoting == csv.QUOTE_MINIMAL and "\r" in "".join(map("".join, table)):
        return  # csv leaves a carriage return unquoted
    with TemporaryDirectory() as folder:
        rows = scored(Path(folder), out.getvalue(), UNSIGNED, header="absent", window=window)
    assert [[row[str(at)] for at in range(len(table[0]))] for row in rows] == table
