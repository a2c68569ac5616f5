"""File formats: a reader and a writer each, imported when a job needs them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol

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
    format itself has them, for a writer of the same format. offset: bytes of the file read so far.
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


class Source(Protocol):
    """One input file, opened as often as it is iterated.

    columns: names, known before the rows are read (JSON lines: of the first rows). size: bytes. rows: None where the
    format does not say. textual: every value is text, typed only by the model's signature.
    """

    path: Path
    format: str
    textual: bool
    columns: tuple[str, ...]
    size: int
    rows: int | None

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Chunks of at most `rows` rows; InputInvalid where the file as a whole cannot be read on."""

    def schema(self) -> Any:
        """All columns with their types as a `pyarrow.Schema`; JSON lines are read through for it."""


class Writer(Protocol):
    """Writes the part files of one job, one after the other: `begin`, `write` for each chunk, `close`."""

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        """Each prediction as this format holds it, or why it cannot."""

    def begin(self, stream: BinaryIO) -> None: ...

    def write(self, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        """The rows `kept` (indices into the chunk) with their fitted predictions."""

    def close(self) -> None:
        """Complete the part; the stream stays open."""


def load(name: str) -> ModuleType:
    """The format's module, with `open_source(path)` and `open_writer(source, outputs)`."""
    return importlib.import_module(FORMATS[name])


def of_path(path: Path) -> str:
    """A format by the path's suffix; WrongUsage where it names none."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise WrongUsage(
            f"{path.name}: the suffix names no format",
            remedy=f"a name that ends in {', '.join(SUFFIXES)}, or --input-format {'|'.join(FORMATS)}",
        ) from None
