"""Rows without an answer: which, what they hold, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.formats import CHUNK_BYTES, Chunk
from likewise.batch.values import as_json
from likewise.core.errors import LikewiseError
from likewise.core.extras import need


def schema() -> Any:
    """The columns of a quarantine, as a `pyarrow.Schema`.

    file: its input file. row: its number, from 1. line: the physical line it begins on, null where the format has none.
    code, cause, remedy: why. columns: what it holds, as a JSON object in ASCII; what has no column (a line that is not
    JSON, surplus fields) stands under the empty name, a byte that is not UTF-8 as \\udc80 to \\udcff (Python's
    `surrogateescape`).
    """
    pa = need("pyarrow", extra="batch")
    numbers = [("row", pa.int64()), ("line", pa.int64())]
    texts = [(name, pa.string()) for name in ("code", "cause", "remedy", "columns")]
    return pa.schema([("file", pa.string()), *numbers, *texts])


def lines(chunk: Chunk, errors: Mapping[int, LikewiseError]) -> Iterator[bytes]:
    """The rows of `chunk` that have an error, by index: a JSON line each, as `write_parquet` takes it."""
    for index in sorted(errors):
        yield json.dumps(entry(chunk, index, errors[index])).encode() + b"\n"


def entry(chunk: Chunk, index: int, error: LikewiseError) -> dict[str, object]:
    """One row of the quarantine."""
    return {
        "file": _ascii(chunk.file),
        "row": chunk.first + index,
        "line": chunk.lines[index] if chunk.lines else None,
        "code": error.code,
        "cause": _ascii(error.cause),
        "remedy": _ascii(error.remedy),
        "columns": json.dumps(json.loads(as_json(chunk.records[index]))),
    }


def write_parquet(path: Path, stream: BinaryIO) -> None:
    """The lines in the file `path` as a Parquet file, some megabytes at a time."""
    pa = need("pyarrow", extra="batch")
    with need("pyarrow.parquet", extra="batch").ParquetWriter(stream, schema()) as file, path.open("rb") as rows:
        while block := rows.readlines(CHUNK_BYTES):
            file.write_table(pa.Table.from_pylist([json.loads(row) for row in block], schema=schema()))


def _ascii(text: str) -> str:
    """The same text where it is Unicode; lone surrogates, which Parquet cannot hold, escaped."""
    return text.encode(errors="backslashreplace").decode()
