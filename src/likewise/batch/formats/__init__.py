"""File formats: a reader and a writer each, imported when a job needs them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol, runtime_checkable

from likewise.batch.files import COMPRESSED, InputFile
from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.results import Result

FORMATS: dict[str, str] = {
    "csv": "likewise.batch.formats.csv_lines",
    "jsonl": "likewise.batch.formats.json_lines",
    "parquet": "likewise.batch.formats.parquet",
}
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}

PREDICTIONS = "predictions"  # the column that a job adds
CHUNK_BYTES = 8 << 20  # a chunk ends here, or at its number of rows: what bounds a job's memory


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one file, in the file's order.

    first: number of the first row, counted from 1 after any header. lines: physical line of each row, None where the
    format has no lines. records: the row's columns by name; of a row in `faults` (index: why it cannot be read) what
    could be saved of it. Undecodable bytes stand there as lone surrogates (surrogateescape). native: the rows as the
    format itself has them, for a writer of the same format. offset: bytes of the input read so far.
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


def counted(file: str, first: int, rows: int, offset: int) -> Chunk:
    """A chunk whose rows hold nothing."""
    return Chunk(file, first, [{}] * rows, {}, None, None, offset)


class RowSource(Protocol):
    """One input file, or several as one; opened as often as it is iterated.

    name: as messages give it. columns: names, known before the rows are read (JSON lines: of the first rows). size:
    bytes. rows: None where the format does not say. textual: every value is text, typed only by the model's signature.
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
        """One source a file."""

    @property
    def files(self) -> Sequence[InputFile]:
        """What is read."""

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        """Chunks of at most `rows` rows of one file; InputInvalid where the file as a whole cannot be read on.

        The first `past` chunks are only counted: their rows hold nothing, which costs less.
        """

    def schema(self, *others: Any) -> Any:
        """All columns with their types as a `pyarrow.Schema`; JSON lines, `others` too, are read through for it."""


class OneFile:
    """What the sources of one file have in common."""

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
    """Writes part files, which grow by a chunk at a time and may be cut back to the end of any. Streams stay open."""

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        """Each prediction as this format holds it, or why it cannot."""

    def begin(self, stream: BinaryIO) -> None:
        """What stands before the first row."""

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        """The rows `kept` (indices into the chunk) with their fitted predictions."""


@runtime_checkable
class SealedWriter(Writer, Protocol):
    """A writer of a format that does not grow: what it writes is made a part file of at the end."""

    def seal(self, pieces: BinaryIO, stream: BinaryIO) -> None:
        """The part file of what was written to `pieces`."""


def load(name: str) -> ModuleType:
    """The format's module, with `open_source(file)` and `open_writer(source, outputs)`."""
    return importlib.import_module(FORMATS[name])


def format_of(name: str) -> str | None:
    """A format by a file name's suffix, one before `.gz` too where the format is text; None where it names none."""
    path = Path(name.lower())
    if path.suffix != COMPRESSED:
        return SUFFIXES.get(path.suffix)
    inner = SUFFIXES.get(Path(path.stem).suffix)
    return None if inner == "parquet" else inner


def of_name(name: str) -> str:
    """A format by a file name's suffix; WrongUsage where it names none."""
    if (found := format_of(name)) is None:
        raise WrongUsage(
            f"{name.rsplit('/', 1)[-1]}: the suffix names no format",
            remedy=f"a name that ends in {', '.join(SUFFIXES)}, or --input-format {'|'.join(FORMATS)}",
        )
    return found
