"""JSON Lines: one object per line, read line by line so that an invalid line affects only its own row.

`pyarrow.json` infers types and rejects a whole file for a single lone surrogate; here each line of the input is copied
to the output unchanged, with the prediction inserted before its closing brace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from likewise.batch.files import InputFile, Reading
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, skipped_chunk
from likewise.batch.values import as_json, as_some_json, written
from likewise.core.casts import EXACT, parse_number
from likewise.core.errors import InputInvalid, LikewiseError
from likewise.core.extras import need
from likewise.core.results import Result
from likewise.core.text import unicode_fault

BOM = b"\xef\xbb\xbf"
FIRST_ROWS = 1000  # the columns of a source are those of this many first rows
MAX_COLUMNS = 5000  # of a typed output, in which every row has every column


class JsonLinesSource(OneFile):
    """A file with one JSON object per line; InputInvalid for a single JSON document. Empty lines are skipped."""

    format = "jsonl"
    textual = False
    rows = None

    def __init__(self, file: InputFile) -> None:
        super().__init__(file)
        head = next(self.chunks(FIRST_ROWS), None)
        self.columns = tuple(dict.fromkeys(name for record in _valid_records(head) for name in record) if head else ())

    def schema(self, *others: JsonLinesSource) -> Any:
        """One type per column if all its values have it; else text, with values other than strings as JSON."""
        pa = need("pyarrow", extra="batch")
        kinds: dict[str, set[str]] = {}
        for chunk in (chunk for source in (self, *others) for chunk in source.chunks(FIRST_ROWS)):
            for record in _valid_records(chunk):
                for name, value in record.items():
                    kinds.setdefault(name, set()).add(_kind(value))
            if len(kinds) > MAX_COLUMNS:
                raise InputInvalid(
                    f"{self.name} has more than {MAX_COLUMNS:,} different columns, and each row would have all of them",
                    remedy="write JSON Lines (--format jsonl), in which each row keeps its own columns",
                )
        kinds.pop(PREDICTIONS, None)  # rows with this column are quarantined
        return pa.schema([(name, pa.type_for_alias(_alias(of - {"null"}))) for name, of in kinds.items()])

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        first, number = 1, 0
        native: list[str] = []
        lines: list[int] = []
        size = 0
        with Reading(self.file) as reading:
            for data in reading.stream:
                number += 1
                if number == 1:
                    data = data.removeprefix(BOM)
                    self._refuse_document(data)
                if not data.strip():
                    continue
                native.append(data.decode(errors="surrogateescape").strip())
                lines.append(number)
                size += len(data)
                if len(native) == rows or size >= CHUNK_BYTES:
                    yield self._chunk(first, native, lines, reading.offset, only_counted=past > 0)
                    first, native, lines, size, past = first + len(native), [], [], 0, past - 1
        if native:
            yield self._chunk(first, native, lines, self.size, only_counted=past > 0)

    def _refuse_document(self, data: bytes) -> None:
        start = data.strip()
        if start in (b"[", b"{") or start.startswith(b"[{"):
            raise InputInvalid(
                f"{self.name} is one JSON document, not JSON Lines",
                remedy="write one object per line, for example with: jq -c '.[]'",
            )
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputInvalid(f"{self.name} is UTF-16", remedy="save the file as UTF-8")

    def _chunk(self, first: int, native: list[str], lines: list[int], offset: int, *, only_counted: bool) -> Chunk:
        if only_counted:
            return skipped_chunk(self.file.short, first, len(native), offset)
        records: list[Mapping[str, object]] = []
        faults: dict[int, LikewiseError] = {}
        for index, (text, line) in enumerate(zip(native, lines, strict=True)):
            record, fault = _parse(text, f"line {line}")
            records.append(record)
            if fault:
                faults[index] = fault
        return Chunk(self.file.short, first, records, faults, lines, native, offset)


def _valid_records(chunk: Chunk) -> Iterator[Mapping[str, object]]:
    return (record for index, record in enumerate(chunk.records) if index not in chunk.faults)


def _parse(text: str, where: str) -> tuple[Mapping[str, object], LikewiseError | None]:
    """The record in a line, and the error if it is invalid."""
    fault = unicode_fault(text, where)
    if fault:
        return {"": text}, fault
    try:
        record = json.loads(text, parse_float=parse_number)
    except (ValueError, RecursionError) as error:
        return {"": text}, InputInvalid(f"{where} is not JSON: {error}", remedy="write one JSON object per line")
    if not isinstance(record, dict):
        kind = type(record).__name__
        return {"": text}, InputInvalid(f"{where} is a JSON {kind}, not an object", remedy='write {"column": value}')
    if "\\ud" in text or "\\uD" in text:  # in decoded text only an escape can produce a lone surrogate
        fault = unicode_fault(json.dumps(record, ensure_ascii=False), where)
    return record, fault


class JsonLinesWriter:
    """Writes lines of JSON Lines as they were read, and rows of other formats as objects."""

    def __init__(self, source: RowSource, outputs: object) -> None:
        """JSON has no types to declare."""

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return [written(value, as_json) for value in predictions]

    def begin(self, stream: BinaryIO) -> None:
        pass

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        for index, prediction in zip(kept, predictions, strict=True):
            record = chunk.records[index]
            line = chunk.native[index] if isinstance(chunk.native, list) else as_some_json(record)
            comma = ", " if record else ""
            stream.write(f'{line[:-1].rstrip()}{comma}"{PREDICTIONS}": {prediction}}}\n'.encode())


def _kind(value: object) -> str:
    """The kind of a value, by which `_alias` chooses the type of a column."""
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool):
        return "small" if abs(value) <= EXACT else "large" if -(1 << 63) <= value < 1 << 63 else "text"
    return {bool: "bool", float: "float", str: "str"}.get(type(value), "text")


def _alias(kinds: set[str]) -> str:
    """The name of the Arrow type that represents values of all these kinds exactly."""
    if kinds == {"bool"}:
        return "bool"
    if kinds and kinds <= {"small", "large"}:
        return "int64"
    return "float64" if kinds and kinds <= {"small", "float"} else "string"


open_source, open_writer = JsonLinesSource, JsonLinesWriter
