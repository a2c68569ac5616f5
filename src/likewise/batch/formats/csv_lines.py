"""CSV as RFC 4180 has it: comma, double quotes, newlines inside them. Every value is text; nothing is guessed."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from likewise.batch.files import InputFile, Reading
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, counted
from likewise.batch.values import as_cell, unicode_fault
from likewise.core.errors import InputInvalid, LikewiseError
from likewise.core.extras import need
from likewise.core.results import Failed, Ok, Result

FIELD_LIMIT = 16 << 20  # characters; a quote that is never closed would else take the whole file into memory


class CsvSource(OneFile):
    """A CSV file with a header; InputInvalid where that cannot be used. Empty lines are no rows, as pandas has it.

    A row that is not CSV costs its first physical line, which its record holds under the empty name; the line after it
    begins the next row.
    """

    format = "csv"
    textual = True
    rows = None

    def __init__(self, file: InputFile) -> None:
        super().__init__(file)
        with self._open() as reader:
            self.columns = self._header(reader)

    def schema(self, *_: Any) -> Any:
        pa = need("pyarrow", extra="batch")
        return pa.schema([(name, pa.string()) for name in self.columns])

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        with self._open() as reader:
            self._header(reader)
            first = 1
            while True:
                if past > 0:
                    found = sum(1 for _ in _bounded(reader, rows))
                    chunk = counted(self.file.short, first, found, reader.offset)
                else:
                    chunk = self._chunk(reader, first, rows)
                if not len(chunk):
                    return
                yield chunk
                first, past = first + len(chunk), past - 1

    @contextmanager
    def _open(self) -> Iterator[_Reader]:
        csv.field_size_limit(FIELD_LIMIT)  # the whole process's: every reader of CSV sets its own
        with Reading(self.file) as reading:
            yield _Reader(reading)

    def _header(self, reader: _Reader) -> tuple[str, ...]:
        try:
            fields = reader.read()
        except csv.Error as error:
            raise InputInvalid(f"{self.name}: the header: {error}", remedy="check the quotes of line 1") from error
        if fields is None:
            raise InputInvalid(f"{self.name} is empty: there is no header", remedy="begin with a line of column names")
        if fault := unicode_fault("".join(fields), f"{self.name}: the header"):
            raise InputInvalid(fault.cause, remedy="save the file as UTF-8")
        if len(set(fields)) < len(fields):
            twice = next(name for name in fields if fields.count(name) > 1)
            raise InputInvalid(f"{self.name}: two columns are named {twice!r}", remedy="give each column its own name")
        return tuple(fields)

    def _chunk(self, reader: _Reader, first: int, rows: int) -> Chunk:
        records: list[dict[str, object]] = []
        lines: list[int] = []
        faults: dict[int, LikewiseError] = {}
        for fields in _bounded(reader, rows):
            record: dict[str, object]
            fault: LikewiseError | None
            if isinstance(fields, csv.Error):
                record, fault = {"": reader.text}, self._broken(fields, reader)
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

    def _broken(self, error: csv.Error, reader: _Reader) -> InputInvalid:
        where = f"{self.name}: the row that begins on line {reader.line}"
        if "field limit" in str(error):
            return InputInvalid(f"{where} has a field of more than {FIELD_LIMIT} characters", remedy="close its quote")
        return InputInvalid(f"{where} is not CSV: {error}", remedy='close its quotes; a quote inside is written ""')

    def _fault(self, fields: list[str], line: int) -> LikewiseError | None:
        if len(fields) != len(self.columns):
            return InputInvalid(
                f"line {line} has {len(fields)} fields where the header has {len(self.columns)}",
                remedy="quote fields that hold commas or newlines",
            )
        return unicode_fault("".join(fields), f"line {line}")


class _Reader(Iterator[str]):
    """Rows with the line that each begins on, and their text.

    It is the iterator of lines that `csv.reader` takes: unlike a generator, it goes on after its end when lines have
    been put back.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._stream = io.TextIOWrapper(reading.stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._rows = csv.reader(self, strict=True)
        self._taken: list[str] = []  # lines of the row that is being read
        self._again: deque[str] = deque()  # lines that a broken row had taken
        self.line = 1

    @property
    def offset(self) -> int:
        """Bytes taken from the file, read-ahead included."""
        return self._reading.offset

    def read(self) -> list[str] | None:
        """The next row that is not an empty line, None at the end; csv.Error where its quotes are wrong.

        After an error the next row begins on the next line: a quote left open had taken all lines up to the next one.
        """
        while True:
            self.line += len(self._taken)
            self._taken.clear()
            try:
                fields = next(self._rows, None)
            except csv.Error:
                self._again.extendleft(reversed(self._taken[1:]))
                del self._taken[1:]
                raise
            if fields != []:
                return fields

    @property
    def text(self) -> str:
        """The row as it stands in the file; of a broken one, its first line."""
        return "".join(self._taken).rstrip("\r\n")

    def __next__(self) -> str:
        if not (line := self._again.popleft() if self._again else self._stream.readline()):
            raise StopIteration
        self._taken.append(line)
        return line


def _bounded(reader: _Reader, rows: int) -> Iterator[list[str] | csv.Error]:
    """The rows of one chunk, or what is wrong with one's quotes."""
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
    """The rows as text, the predictions as text or JSON, one line feed a row."""

    def __init__(self, source: RowSource, outputs: object) -> None:  # noqa: ARG002  CSV has no types to declare
        self._columns: list[str] = list(source.schema().names)

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return [_cell(value) for value in predictions]

    def begin(self, stream: BinaryIO) -> None:
        _writer(stream).writerow([*self._columns, PREDICTIONS])

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        columns, records = self._columns, chunk.records
        _writer(stream).writerows(
            [*[as_cell(records[index].get(name)) for name in columns], prediction]
            for index, prediction in zip(kept, predictions, strict=True)
        )


def _writer(stream: BinaryIO) -> Any:
    # csv quotes a lone carriage return only if the line ends in one (Python < 3.13): `_Lines` takes it off again
    return csv.writer(_Lines(stream), lineterminator="\r\n")


class _Lines:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write((line[:-2] + "\n").encode())


def _cell(value: object) -> Result:
    cell = as_cell(value)
    fault = unicode_fault(cell, "the prediction")
    return Failed(fault) if fault else Ok(cell)


open_source, open_writer = CsvSource, CsvWriter
