"""An input for jobs with bad rows, and a comparison of a job's output with that of the local runner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from likewise import api
from likewise.batch import ScoreOptions


@dataclass
class Rows:
    """An input with bad rows, and the local runner's output for it."""

    source: Path
    rows: bytes
    quarantine: list[dict[str, Any]]
    bad: int


def local_rows(folder: Path, model: api.Bundle, poison: str, rows: int, window: int) -> Rows:
    """Lines of JSON, of which one in a hundred is invalid Unicode and one has the text `poison`."""
    source = folder / "in.jsonl"
    with source.open("wb") as stream:
        for row in range(rows):
            text = poison if row % 100 == 43 else f"{'word ' * (row % 40)} number {row}"
            line = json.dumps({"id": row, "text": text}).encode()
            stream.write((b"broken \xff" if row % 100 == 7 else line) + b"\n")
    report = api.score(model, source, folder / "local", options=ScoreOptions(window=window))
    return Rows(source, *output_of(folder / "local"), report.rows_quarantined)


def output_of(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    (part,) = folder.glob("part-*")
    return part.read_bytes(), pq.read_table(folder / "_quarantine.parquet").to_pylist()


def check(report: Mapping[str, Any], output: Path, rows: Rows, count: int) -> None:
    assert (report["rows_in"], report["rows_quarantined"]) == (count, rows.bad)
    assert report["rows_ok"] == count - rows.bad
    scored, quarantine = output_of(output)
    assert scored == rows.rows
    assert quarantine == rows.quarantine
