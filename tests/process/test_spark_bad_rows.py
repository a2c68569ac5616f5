"""Bad rows of every kind, one in a hundred each: the same rows fail on Spark as locally, with the same errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.spark.bundles import predicted

import likewise.spark
from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROWS = 200
MEGABYTE = b"x" * 1_000_000
# row number modulo 100 to the text as bytes in CSV and Parquet, and as JSON
KINDS: dict[int, tuple[bytes | None, bytes]] = {
    3: (None, b"null"),
    17: (b"caf\xe9 \xff", b'"caf\xe9 \xff"'),
    31: (b"lone \xed\xa0\x80", b'"lone \\ud800"'),
    48: (b"nul \x00 in it", b'"nul \\u0000 in it"'),
    62: (MEGABYTE, b'"' + MEGABYTE + b'"'),
    90: (b"poison", b'"poison"'),
}
NO_TEXT = {17: "ROW_REFUSED", 31: "ROW_REFUSED"}
# a compiled classifier rejects null and accepts every text; the Python model accepts null and raises on poison
CODES = {"text_model": NO_TEXT | {3: "ROW_REFUSED"}, "code_model": NO_TEXT | {90: "MODEL_RAISED"}}
SUFFIXES = ["csv", "jsonl", "parquet"]


def texts() -> list[bytes | None]:
    return [KINDS[row % 100][0] if row % 100 in KINDS else b"fine %d" % row for row in range(ROWS)]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        column = pa.array(texts(), pa.binary()).view(pa.string())
        pq.write_table(pa.table({"id": pa.array(range(ROWS), "int64"), "text": column}), path, row_group_size=80)
    elif path.suffix == ".jsonl":
        cells = [KINDS[row % 100][1] if row % 100 in KINDS else b'"fine %d"' % row for row in range(ROWS)]
        path.write_bytes(b"".join(b'{"id": %d, "text": %s}\n' % (row, cell) for row, cell in enumerate(cells)))
    else:
        path.write_bytes(b"id,text\n" + b"".join(b'%d,"%s"\n' % (row, text or b"") for row, text in enumerate(texts())))
    return path


def expected(suffix: str, model: str) -> dict[int, str]:
    """The error code of each failing row; a CSV has no null, only empty text."""
    codes = {kind: code for kind, code in CODES[model].items() if KINDS[kind][0] is not None or suffix != "csv"}
    return {row: codes[row % 100] for row in range(ROWS) if row % 100 in codes}


def output_of(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    (part,) = folder.glob("part-*")
    rows = pq.read_table(part) if part.suffix == ".parquet" else part.read_bytes()
    return rows, pq.read_table(folder / "_quarantine.parquet").to_pylist()


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("model", CODES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_job_quarantines_the_same_rows_as_the_local_runner(
    request: pytest.FixtureRequest, tmp_path: Path, suffix: str, model: str
) -> None:
    source = write(tmp_path / f"in.{suffix}")
    failed = expected(suffix, model)
    outputs = {}
    for runner in ("local", "spark"):
        options = ScoreOptions(runner=runner, window=64)
        report = api.score(request.getfixturevalue(model), source, tmp_path / runner, options=options)
        assert (report.rows_in, report.rows_ok, report.rows_quarantined) == (ROWS, ROWS - len(failed), len(failed))
        outputs[runner] = output_of(tmp_path / runner)
        assert {row["row"] - 1: row["code"] for row in outputs[runner][1]} == failed
    assert outputs["spark"][1] == outputs["local"][1]
    assert outputs["spark"][0] == outputs["local"][0]


@pytest.mark.parametrize("model", CODES)
def test_frame_gives_the_same_result_per_row_as_the_local_runner(
    request: pytest.FixtureRequest, spark: Any, tmp_path: Path, model: str
) -> None:
    """Spark's own Parquet reader passes invalid bytes on unchanged."""
    bundle = request.getfixturevalue(model)
    source = write(tmp_path / "in.parquet")
    scored = likewise.spark.score_frame(spark.read.parquet(str(source)), bundle, result_type="string")
    rows = {row["id"]: row for row in scored.select("id", "predictions", "error").collect()}
    assert rows.keys() == set(range(ROWS))
    failed = expected("parquet", model)
    assert {row: each["error"]["code"] for row, each in rows.items() if each["error"]} == failed
    valid = [row for row in range(ROWS) if row not in failed]
    all_texts = texts()
    valid_texts = [all_texts[row] for row in valid]
    expected_predictions = predicted(bundle, [None if text is None else text.decode() for text in valid_texts])
    assert [rows[row]["predictions"] for row in valid] == expected_predictions
