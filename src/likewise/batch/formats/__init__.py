"""File formats, each with a reader and a writer that are imported when a job needs them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol, runtime_checkable

from likewise.batch.files import COMPRESSED, InputFile
from likewise.batch.header import Header
from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.results import Result

FORMATS: dict[str, str] = {
    "csv": "likewise.batch.formats.csv_lines",
    "jsonl": "likewise.batch.formats.json_lines",
    "parquet": "likewise.batch.formats.parquet",
}
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}

PREDICTIONS = "predictions"  # the column that a job adds
CHUNK_BYTES = 8 << 20  # a chunk ends at this size or at its number of rows, which limits the memory of a job


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one file, in the file's order.

    file: short name. first: number of the first row, counted from 1 after any header. records: the columns of each row
    by name; undecodable bytes are lone surrogates (surrogateescape). faults: the errors of unreadable rows by index;
    their records contain what could be read. lines: physical line of each row, None if the format has no lines.
    native: the rows in the format's own form, for a writer of the same format. offset: bytes of the input read so far.
    """

    file: str
    first: int
    records: Sequence[Mapping[str, object]]
    faults: Mapping[int, LikewiseError]
    lines: Sequence[int] | None
    native: Any
    offset: int

    def __len__(self) -> int:
        return len(self.records)


def skipped_chunk(file: str, first: int, rows: int, offset: int) -> Chunk:
    """A chunk with the number of its rows but without their content."""
    return Chunk(file, first, [{}] * rows, {}, None, None, offset)


class RowSource(Protocol):
    """One input file, or several as one; opened again for each iteration.

    name: for messages. columns: names, known before the rows are read (JSON Lines: of the first rows). size: bytes.
    rows: None if the format does not record their number. textual: every value is text, typed by the model's signature.
    """

    format: str
    textual: bool
    columns: tuple[str, ...]
    size: int
    rows: int | None

    @property
    def name(self) -> str: ...

    @property
    def parts(self) -> Sequence[RowSource]:
        """The sources of the single files."""

    @property
    def files(self) -> Sequence[InputFile]:
        """The input files."""

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        """Chunks of at most `rows` rows of one file; InputInvalid if the file as a whole becomes unreadable.

        The first `past` chunks are only counted: their records are empty, which is faster.
        """

    def schema(self, *others: Any) -> Any:
        """All columns with their types as a `pyarrow.Schema`. For JSON Lines this reads all rows, also of `others`."""


class OneFile:
    """Base class of sources with one file."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.size = file.size

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def parts(self) -> Sequence[Any]:
        return (self,)

    @property
    def files(self) -> Sequence[InputFile]:
        return (self.file,)


class Writer(Protocol):
    """Writes part files chunk by chunk; a file may be truncated to the end of any chunk. Does not close streams."""

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        """Convert each prediction to this format, or return its error."""

    def begin(self, stream: BinaryIO) -> None:
        """Write the header, if the format has one."""

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        """Write the rows `kept` (indices into the chunk) with their converted predictions."""


@runtime_checkable
class SealedWriter(Writer, Protocol):
    """A writer of a format that cannot be appended to: it writes pieces, which `seal` converts to a part file."""

    @property
    def open_kind(self) -> Any:
        """What is known of the type of the predictions so far, as a JSON value; None if the signature declares it.

        If it is not None, parts may be sealed only when it includes all predictions of the job.
        """

    @property
    def prediction_type(self) -> str:
        """The name of the type of the predictions."""

    def include(self, kind: Any) -> None:
        """Take predictions into account that an earlier run or another machine wrote. kind: its `open_kind`."""

    def seal(self, pieces: BinaryIO, stream: BinaryIO) -> None:
        """Convert what was written to `pieces` to a part file."""


def load(name: str) -> ModuleType:
    """The format's module, with `open_source(file)` and `open_writer(source, outputs)`."""
    return importlib.import_module(FORMATS[name])


def open_file(file: InputFile, name: str, header: Header) -> RowSource:
    """Open a file of the format `name`; header: of CSV.  Raises InputInvalid, and OSError if it cannot be read."""
    module = load(name)
    source: RowSource = module.open_source(file, header) if name == "csv" else module.open_source(file)
    return source


def format_of(name: str) -> str | None:
    """The format for the suffix of a file name, for text formats also before `.gz`; None for an unknown suffix."""
    path = Path(name.lower())
    if path.suffix != COMPRESSED:
        return SUFFIXES.get(path.suffix)
    inner = SUFFIXES.get(Path(path.stem).suffix)
    return None if inner == "parquet" else inner


def require_format(name: str) -> str:
    """The format for the suffix of a file name; WrongUsage for an unknown suffix."""
    if (format_name := format_of(name)) is None:
        raise WrongUsage(
            f"{name.rsplit('/', 1)[-1]}: unknown file format",
            remedy=f"use a file name that ends in {', '.join(SUFFIXES)}, or --input-format {'|'.join(FORMATS)}",
        )
    return format_name
