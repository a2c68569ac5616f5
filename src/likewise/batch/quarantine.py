"""The quarantine: rows without a prediction, with their position, content and error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.formats import CHUNK_BYTES, Chunk
from likewise.batch.values import as_some_json
from likewise.core.errors import LikewiseError
from likewise.core.extras import need
from likewise.core.private_files import open_file

Entry = Mapping[str, Any]  # a row of the quarantine, as a JSON object


def schema() -> Any:
    """The columns of a quarantine file, as a `pyarrow.Schema`.

    file: the input file. row: the row's number, from 1. line: the physical line on which it starts, null if the format
    has no lines. code, cause, remedy: the error. columns: the row's content as a JSON object in ASCII. Content without
    a column (a line that is not JSON, surplus fields) has the empty string as its name; a byte that is not UTF-8 is
    written as \\udc80 to \\udcff (Python's `surrogateescape`).
    """
    pa = need("pyarrow", extra="batch")
    numbers = [("row", pa.int64()), ("line", pa.int64())]
    texts = [(name, pa.string()) for name in ("code", "cause", "remedy", "columns")]
    return pa.schema([("file", pa.string()), *numbers, *texts])


def entries(chunk: Chunk, errors: Mapping[int, LikewiseError]) -> list[Entry]:
    """The rows of `chunk` that have an error. errors: by row index."""
    return [entry(chunk, index, errors[index]) for index in sorted(errors)]


def line(entry: Entry) -> bytes:
    """A quarantined row as a JSON line for `write_parquet`."""
    return json.dumps(entry).encode() + b"\n"


def entry(chunk: Chunk, index: int, error: LikewiseError) -> Entry:
    """One row of the quarantine, as a JSON object."""
    return {
        "file": _ascii(chunk.file),
        "row": chunk.first + index,
        "line": chunk.lines[index] if chunk.lines else None,
        "code": error.code,
        "cause": _ascii(error.cause),
        "remedy": _ascii(error.remedy),
        "columns": json.dumps(json.loads(as_some_json(chunk.records[index]))),
    }


def write_parquet(path: Path, stream: BinaryIO) -> None:
    """Convert the JSON lines in the file `path` to Parquet, some megabytes at a time."""
    pa = need("pyarrow", extra="batch")
    parquet = need("pyarrow.parquet", extra="batch")
    with parquet.ParquetWriter(stream, schema()) as file, open_file(path, "rb") as rows:
        while block := rows.readlines(CHUNK_BYTES):
            file.write_table(pa.Table.from_pylist([json.loads(row) for row in block], schema=schema()))


def _ascii(text: str) -> str:
    """The text with lone surrogates escaped, because Parquet cannot store them."""
    return text.encode(errors="backslashreplace").decode()
