"""Rows without an answer: which, what they hold, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from likewise.batch.formats import Chunk
from likewise.batch.values import as_json
from likewise.core.errors import LikewiseError
from likewise.core.extras import need


class Quarantine:
    """A Parquet file with one row a quarantined row.

    file: its input file. row: its number, from 1. line: the physical line it begins on, null where the format has none.
    code, cause, remedy: why. columns: what it holds, as a JSON object in ASCII; what has no column (a line that is not
    JSON, surplus fields) stands under the empty name, a byte that is not UTF-8 as \\udc80 to \\udcff (Python's
    `surrogateescape`).
    """

    def __init__(self, stream: BinaryIO) -> None:
        pa = need("pyarrow", extra="batch")
        numbers = [("row", pa.int64()), ("line", pa.int64())]
        texts = [(name, pa.string()) for name in ("code", "cause", "remedy", "columns")]
        self._pa = pa
        self._schema = pa.schema([("file", pa.string()), *numbers, *texts])
        self._file: Any = need("pyarrow.parquet", extra="batch").ParquetWriter(stream, self._schema)

    def write(self, chunk: Chunk, errors: Mapping[int, LikewiseError]) -> None:
        """The rows of `chunk` that have an error, by index."""
        if errors:
            rows = [_row(chunk, index, errors[index]) for index in sorted(errors)]
            self._file.write_table(self._pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Complete the file; the stream stays open."""
        self._file.close()


def _row(chunk: Chunk, index: int, error: LikewiseError) -> dict[str, object]:
    return {
        "file": chunk.file,
        "row": chunk.first + index,
        "line": chunk.lines[index] if chunk.lines else None,
        "code": error.code,
        "cause": _ascii(error.cause),
        "remedy": _ascii(error.remedy),
        "columns": json.dumps(json.loads(as_json(chunk.records[index]))),
    }


def _ascii(text: str) -> str:
    """The same text where it is Unicode; lone surrogates, which Parquet cannot hold, escaped."""
    return text.encode(errors="backslashreplace").decode()
