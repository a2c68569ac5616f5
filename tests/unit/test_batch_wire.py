"""`likewise score` and HTTP requests parse CSV and JSON in the same way."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from tests.support.batch.scoring import quarantined, run_job

from likewise.core.errors import BadRequest
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.wire import decode

REFUSED = object()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "", ""),
        ("string", "NA", "NA"),
        ("string", "007", "007"),
        ("long", "5.0", 5),
        ("long", " 7 ", 7),
        ("long", "1_000", REFUSED),
        ("long", "+-5", REFUSED),
        ("long", "\u0663", REFUSED),
        ("long", "1.5", REFUSED),
        ("long", "NA", REFUSED),
        ("long", "9223372036854775807", 2**63 - 1),
        ("long", "9223372036854775808", REFUSED),
        ("integer", "3000000000", REFUSED),
        ("double", "1_0.5", REFUSED),
        ("double", "\u0661.5", REFUSED),
        ("double", "1e3", 1000.0),
        ("double", "NA", None),
        ("double", "", None),
        ("boolean", " true", True),
        ("boolean", "FALSE", False),
        ("boolean", "yes", REFUSED),
        ("datetime", "2024/01/02", datetime(2024, 1, 2)),
        ("datetime", "2024-01-02T10:00:00+02:00", datetime(2024, 1, 2, 8)),
        ("datetime", "", None),
        ("datetime", "soon", REFUSED),
        ("binary", "AP8=", b"\x00\xff"),
        ("binary", "not base64", REFUSED),
        ("array", '"[1, 2]"', [1, 2]),
        ("array", "[1", REFUSED),
        ("any", "[1", "[1"),
    ],
)
def test_csv_field_is_cast_equally_in_jobs_and_requests(tmp_path: Path, kind: str, text: str, value: object) -> None:
    column = {"name": "v", "type": kind, "required": True} | ({"items": {"type": "long"}} if kind == "array" else {})
    signature = Signature.parse({"inputs": [{"name": "id", "type": "string"}, column]})
    csv = f"id,v\na,{text}\n".encode()
    seen: list[Row] = []
    (tmp_path / "in.csv").write_bytes(csv)
    run_job(tmp_path / "in.csv", tmp_path / "out.csv", lambda row: seen.append(row) or 1, signature=signature)
    if value is REFUSED:
        with pytest.raises(BadRequest) as caught:
            decode(csv, "text/csv", signature)
        (bad,) = quarantined(tmp_path / "out.csv")
        assert seen == []
        expected = caught.value.cause.partition("expected ")[2].partition(", got")[0]
        assert expected
        assert f"column `v`: expected {expected}, got " in bad["cause"]
        return
    (row,) = decode(csv, "text/csv", signature).table.rows
    # the test engine rejects nulls in `prepare`, so its model does not get them
    job = seen[0].values if seen else ("a", None)
    assert row == job == ("a", value)
    assert type(row[1]) is type(job[1]) is type(value)


def test_json_lines_are_cast_like_json_requests(tmp_path: Path) -> None:
    signature = Signature.parse({"inputs": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]})
    seen: list[Row] = []
    (tmp_path / "in.jsonl").write_text(
        '{"n": 5.0, "s": "a"}\n{"n": "7", "s": "b"}\n{"n": 1.5, "s": "c"}\n{"n": 1, "s": 5}\n'
    )
    report = run_job(tmp_path / "in.jsonl", tmp_path / "o.jsonl", lambda r: seen.append(r) or 1, signature=signature)
    assert [row.values for row in seen] == [(5, "a"), (7, "b")]
    assert report.rows_quarantined == 2
