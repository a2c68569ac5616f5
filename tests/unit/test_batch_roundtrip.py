"""Any text round-trips through every format, with the right prediction in its row."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch.scoring import read, run_job, write

pytestmark = pytest.mark.slow

SUFFIXES = ["csv", "jsonl", "parquet"]
LETTERS = st.characters(exclude_categories=["Cs"])
EDGES = st.sampled_from(
    ["", "00123", '"', '""', "\n", "\r", "\r\n", ",", " a ", "NA", "null", "1e5", "\x00", "\u2028", "'"]
)
TEXTS = st.one_of(st.text(LETTERS, max_size=40), EDGES, st.lists(EDGES, max_size=5).map("".join))


@pytest.mark.parametrize("out", SUFFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12), window=st.integers(1, 12))
def test_any_text_round_trips_through_all_formats(
    suffix: str, out: str, rows: list[tuple[str, str]], window: int
) -> None:
    named = [{"text": text, "other": other} for text, other in rows]
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / f"in.{suffix}", named)
        output = Path(folder) / f"out.{out}"
        report = run_job(source, output, predict=lambda row: {"text": row.get("text")[::-1]}, window=window)
        assert read(output) == [{**row, "predictions": row["text"][::-1]} for row in named]
    assert report.rows_ok == len(rows)
