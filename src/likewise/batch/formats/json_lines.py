"""JSON lines: one object a line, read line by line so that a bad one is its own row's trouble.

`pyarrow.json` infers types and refuses a file for one lone surrogate; here a line of the input goes to the output as it
is, the prediction written in before its closing brace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from likewise.batch.files import InputFile, Reading
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, counted
from likewise.batch.values import as_json, unicode_fault
from likewise.core.errors import InputInvalid, LikewiseError, RowRefused
from likewise.core.extras import need
from likewise.core.results import Failed, Ok, Result

BOM = b"\xef\xbb\xbf"
FIRST_ROWS = 1000  # the columns are those of the first rows
EXACT = 1 << 53  # integers up to here are exact as double


class JsonLinesSource(OneFile):
    """One JSON object a line; InputInvalid for one JSON document over many. Empty lines are no rows."""

    format = "jsonl"
    textual = False
    rows = None

    def __init__(self, file: InputFile) -> None:
        super().__init__(file)
        head = next(self.chunks(FIRST_ROWS), None)
        self.columns = tuple(dict.fromkeys(name for record in _sound(head) for name in record) if head else ())

    def schema(self, *others: JsonLinesSource) -> Any:
        """One type a column where all its values have one; else text, with values that are no strings as JSON."""
        pa = need("pyarrow", extra="batch")
        kinds: dict[str, set[str]] = {}
        for chunk in (chunk for source in (self, *others) for chunk in source.chunks(FIRST_ROWS)):
            for record in _sound(chunk):
                for name, value in record.items():
                    kinds.setdefault(name, set()).add(_kind(value))
        kinds.pop(PREDICTIONS, None)  # rows that have it are refused
        return pa.schema([(name, pa.type_for_alias(_alias(found - {"null"}))) for name, found in kinds.items()])

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
                f"{self.name} is one JSON document, not JSON lines",
                remedy="write one object a line, for example with: jq -c '.[]'",
            )
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputInvalid(f"{self.name} is UTF-16", remedy="save the file as UTF-8")

    def _chunk(self, first: int, native: list[str], lines: list[int], offset: int, *, only_counted: bool) -> Chunk:
        if only_counted:
            return counted(self.file.short, first, len(native), offset)
        records: list[Mapping[str, object]] = []
        faults: dict[int, LikewiseError] = {}
        for index, (text, line) in enumerate(zip(native, lines, strict=True)):
            record, fault = _parse(text, f"line {line}")
            records.append(record)
            if fault:
                faults[index] = fault
        return Chunk(self.file.short, first, records, faults, lines, native, offset)


def _sound(chunk: Chunk) -> Iterator[Mapping[str, object]]:
    return (record for index, record in enumerate(chunk.records) if index not in chunk.faults)


def _parse(text: str, where: str) -> tuple[Mapping[str, object], LikewiseError | None]:
    fault = unicode_fault(text, where)
    if fault:
        return {"": text}, fault
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {"": text}, InputInvalid(f"{where} is not JSON: {error}", remedy="write one JSON object a line")
    if not isinstance(record, dict):
        kind = type(record).__name__
        return {"": text}, InputInvalid(f"{where} is a JSON {kind}, not an object", remedy='write {"column": value}')
    if "\\ud" in text or "\\uD" in text:  # only an escape can bring a lone surrogate into decoded text
        fault = unicode_fault(json.dumps(record, ensure_ascii=False), where)
    return record, fault


class JsonLinesWriter:
    """Lines of JSON lines as they were read; rows of other formats as objects."""

    def __init__(self, source: RowSource, outputs: object) -> None:
        """JSON has no types to declare."""

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return [_text(value) for value in predictions]

    def begin(self, stream: BinaryIO) -> None:
        pass

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        for index, prediction in zip(kept, predictions, strict=True):
            record = chunk.records[index]
            line = chunk.native[index] if isinstance(chunk.native, list) else as_json(record)
            comma = ", " if record else ""
            stream.write(f'{line[:-1].rstrip()}{comma}"{PREDICTIONS}": {prediction}}}\n'.encode())


def _text(value: object) -> Result:
    try:
        text = as_json(value)
    except TypeError as error:
        return Failed(RowRefused(f"the prediction cannot be written: {error}", remedy="answer with JSON's types"))
    fault = unicode_fault(text, "the prediction")
    return Failed(fault) if fault else Ok(text)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool):
        return "small" if abs(value) <= EXACT else "large" if -(1 << 63) <= value < 1 << 63 else "text"
    return {bool: "bool", float: "float", str: "str"}.get(type(value), "text")


def _alias(kinds: set[str]) -> str:
    if kinds == {"bool"}:
        return "bool"
    if kinds and kinds <= {"small", "large"}:
        return "int64"
    return "float64" if kinds and kinds <= {"small", "float"} else "string"


open_source, open_writer = JsonLinesSource, JsonLinesWriter
