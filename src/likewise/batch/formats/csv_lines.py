"""CSV as in RFC 4180: commas, double quotes, newlines inside quotes. Every value is text; no types are inferred."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from likewise.batch.files import InputFile, Reading
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, skipped_chunk
from likewise.batch.header import WITH_HEADER, Header
from likewise.batch.values import as_cell, as_some_json, written
from likewise.core.errors import InputInvalid, LikewiseError
from likewise.core.extras import need
from likewise.core.results import Result
from likewise.core.text import unicode_fault

FIELD_LIMIT = 16 << 20  # characters; otherwise a quote that is never closed would load the whole file into memory


class CsvSource(OneFile):
    """A CSV file; InputInvalid if its header is invalid.

    An empty line is a row with one empty field if the file has one column; else it is skipped, as in pandas.
    If a row is not valid CSV, only its first physical line is quarantined, under the empty column name; the next row
    starts on the next line.
    """

    format = "csv"
    textual = True
    rows = None

    def __init__(self, file: InputFile, header: Header = WITH_HEADER) -> None:
        super().__init__(file)
        self._header = header
        with self._open() as reader:
            self.columns = self._names(reader)

    def schema(self, *_: Any) -> Any:
        pa = need("pyarrow", extra="batch")
        return pa.schema([(name, pa.string()) for name in self.columns])

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        with self._open() as reader:
            if not self._header.absent:
                self._names(reader)
            reader.empty_lines_are_rows = len(self.columns) == 1
            first = 1
            while True:
                if past > 0:
                    count = sum(1 for _ in _bounded(reader, rows))
                    chunk = skipped_chunk(self.file.short, first, count, reader.offset)
                else:
                    chunk = self._chunk(reader, first, rows)
                if not len(chunk):
                    return
                yield chunk
                first, past = first + len(chunk), past - 1

    @contextmanager
    def _open(self) -> Iterator[_Reader]:
        csv.field_size_limit(FIELD_LIMIT)  # applies to the whole process, so every reader of CSV sets its own
        with Reading(self.file) as reading:
            yield _Reader(reading)

    def _names(self, reader: _Reader) -> tuple[str, ...]:
        """The names of the columns; reads the first line that is not empty."""
        absent = self._header.absent
        try:
            fields = reader.read()
        except csv.Error as error:
            what = "first line" if absent else "header"
            raise InputInvalid(f"{self.name}: invalid {what}: {error}", remedy="check the quotes in line 1") from error
        if fields is None and absent and self.size:  # only empty lines, the rows of a single column
            fields = [""]
        if fields is None:
            raise InputInvalid(f"{self.name} is empty: there is no header", remedy="add a first line of column names")
        names = self._header.names(fields, self.name)
        if fault := unicode_fault("".join(names), f"{self.name}: the header"):
            raise InputInvalid(fault.cause, remedy="save the file as UTF-8")
        if len(set(names)) < len(names):
            duplicate = next(name for name in names if names.count(name) > 1)
            cause = f"{self.name}: two columns are named {duplicate!r}"
            raise InputInvalid(cause, remedy="give each column its own name")
        return names

    def _chunk(self, reader: _Reader, first: int, rows: int) -> Chunk:
        records: list[dict[str, object]] = []
        lines: list[int] = []
        faults: dict[int, LikewiseError] = {}
        for fields in _bounded(reader, rows):
            record: dict[str, object]
            fault: LikewiseError | None
            if isinstance(fields, csv.Error):
                record, fault = {"": reader.text}, self._invalid(fields, reader)
            else:
                record, fault = self._record(fields), self._fault(fields, reader.line)
            if fault:
                faults[len(records)] = fault
            records.append(record)
            lines.append(reader.line)
        return Chunk(self.file.short, first, records, faults, lines, None, reader.offset)

    def _record(self, fields: list[str]) -> dict[str, object]:
        record: dict[str, object] = dict(zip(self.columns, fields, strict=False))
        surplus = fields[len(self.columns) :]
        return {**record, "": surplus} if surplus else record

    def _invalid(self, error: csv.Error, reader: _Reader) -> InputInvalid:
        where = f"{self.name}: the row that begins on line {reader.line}"
        if "field limit" in str(error):
            cause = f"{where} has a field of more than {FIELD_LIMIT} characters"
            return InputInvalid(cause, remedy="add the missing closing quote of this field, or shorten it")
        return InputInvalid(
            f"{where} is not valid CSV: {error}", remedy='close its quotes; write a quote inside a field as ""'
        )

    def _fault(self, fields: list[str], line: int) -> LikewiseError | None:
        if len(fields) != len(self.columns):
            than = "fewer than" if len(fields) < len(self.columns) else "more than"
            first = "first line" if self._header.absent else "header"
            return InputInvalid(
                f"line {line} has {len(fields)} fields, {than} the {len(self.columns)} of the {first}",
                remedy="quote fields that contain commas or newlines",
            )
        return unicode_fault("".join(fields), f"line {line}")


class _Reader(Iterator[str]):
    """Reads rows, with the line on which each begins, and their text.

    It is itself the iterator of lines that `csv.reader` consumes: unlike a generator, it continues after its end if
    lines have been pushed back.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._stream = io.TextIOWrapper(reading.stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._rows = csv.reader(self, strict=True)
        self._current: list[str] = []  # lines of the current row
        self._pushed_back: deque[str] = deque()  # lines that an invalid row had consumed
        self.line = 1
        self.empty_lines_are_rows = False

    @property
    def offset(self) -> int:
        """Bytes read from the file, including read-ahead."""
        return self._reading.offset

    def read(self) -> list[str] | None:
        """The next row, None at the end; csv.Error if its quotes are invalid.  Skips empty lines that are not rows.

        After an error the next row begins on the next line: an open quote had consumed all lines up to the next quote.
        """
        while True:
            self.line += len(self._current)
            self._current.clear()
            try:
                fields = next(self._rows, None)
            except csv.Error:
                self._pushed_back.extendleft(reversed(self._current[1:]))
                del self._current[1:]
                raise
            if fields == [] and self.empty_lines_are_rows:
                return [""]
            if fields != []:
                return fields

    @property
    def text(self) -> str:
        """The text of the row in the file; of an invalid row, its first line."""
        return "".join(self._current).rstrip("\r\n")

    def __next__(self) -> str:
        if not (line := self._pushed_back.popleft() if self._pushed_back else self._stream.readline()):
            raise StopIteration
        self._current.append(line)
        return line


def _bounded(reader: _Reader, rows: int) -> Iterator[list[str] | csv.Error]:
    """The rows of one chunk; for a row with invalid quotes its error."""
    size = 0
    for _ in range(rows):
        fields: list[str] | csv.Error | None
        try:
            fields = reader.read()
        except csv.Error as error:
            fields = error
        if fields is None:
            return
        size += len(reader.text)
        yield fields
        if size >= CHUNK_BYTES:
            return


class CsvWriter:
    """Writes rows as text and predictions as text or JSON; lines end in a line feed."""

    def __init__(self, source: RowSource, outputs: object) -> None:  # noqa: ARG002  CSV has no types to declare
        self._columns: list[str] = list(source.schema().names)

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return [written(value, as_cell) for value in predictions]

    def begin(self, stream: BinaryIO) -> None:
        _writer(stream).writerow([*self._columns, PREDICTIONS])

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        columns, records = self._columns, chunk.records
        _writer(stream).writerows(
            [*[as_cell(records[index].get(name), as_some_json) for name in columns], prediction]
            for index, prediction in zip(kept, predictions, strict=True)
        )


def _writer(stream: BinaryIO) -> Any:
    # csv quotes a lone carriage return only if the line terminator contains one (Python < 3.13); `_Lines` removes it
    return csv.writer(_Lines(stream), lineterminator="\r\n")


class _Lines:
    """A text stream for csv.writer that replaces the line ending CR LF by LF and encodes to UTF-8."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write((line[:-2] + "\n").encode())


open_source, open_writer = CsvSource, CsvWriter
