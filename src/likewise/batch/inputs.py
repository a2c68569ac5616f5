"""The input of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from likewise.batch.columns import inferred_types
from likewise.batch.files import InputFile, LocalFile
from likewise.batch.header import Header
from likewise.batch.job import ScoreJob, Types
from likewise.batch.sources import Files, open_source
from likewise.core.errors import InputNotFound
from likewise.core.signature import Signature


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The part of a `Source` that row makers and writers use: the columns, by default those of a frame.

    types: a `pyarrow.Schema`; None if the output needs none.  zone: the time zone in which the model takes the times of
    a table; None for files.
    """

    columns: tuple[str, ...]
    name: str = "the frame"
    format: str = "parquet"
    textual: bool = False
    types: Any = None
    zone: str | None = None

    @property
    def parts(self) -> tuple[InputColumns, ...]:
        """This object: one frame, or files whose columns the driver has compared."""
        return (self,)

    def schema(self) -> Any:
        """All columns with their types."""
        return self.types


class Input(Protocol):
    """What a job reads.

    format: of the files.  size: bytes, None if unknown.  files: those that this process can see.  numbered_on: rows are
    numbered across all parts instead of within each.  identity: changes when the content changes, as far as this can be
    detected.  columns: the columns, with types if the output format needs them.  inferred_types: see
    `likewise.batch.columns.inferred_types`.  cut: lets workers write chunk files of at most `rows` rows to `folder`, and
    returns the tasks' result for each part; see `likewise.batch.distributed`.
    """

    format: str
    size: int | None
    numbered_on: bool

    @property
    def files(self) -> Sequence[InputFile]: ...

    @property
    def identity(self) -> object: ...

    def columns(self, output: str) -> InputColumns: ...

    def inferred_types(self, signature: Signature) -> Types: ...

    def cut(self, workers: Any, rows: int, folder: str) -> Sequence[Mapping[str, Any]]: ...


InputType = TypeVar("InputType", bound=Input)


class FilesInput:
    """Files on storage that all processes of a job share, or objects in S3.

    A row is identified by its file and its position in that file.
    """

    numbered_on = False

    def __init__(self, source: Files, header: Header) -> None:
        self.source = source
        self._header = header
        self.format: str = source.format
        self.size: int | None = source.size

    @property
    def files(self) -> Sequence[InputFile]:
        return [_absolute(file) for file in self.source.files]

    @property
    def identity(self) -> object:
        return {str(file.path.resolve()) if file.path else file.name: file.identity for file in self.files}

    def columns(self, output: str) -> InputColumns:
        source = self.source
        types = None if output == "jsonl" and source.format != "parquet" else source.schema()
        return InputColumns(source.columns, source.name, source.format, source.textual, types)

    def inferred_types(self, signature: Signature) -> Types:
        return inferred_types(self.source, signature)

    def cut(self, workers: Any, rows: int, folder: str) -> Sequence[Mapping[str, Any]]:
        try:
            parts: Sequence[Mapping[str, Any]] = workers.cut(
                len(self.files), (self.files, self.format, self._header, rows, folder)
            )
        except InputNotFound as error:  # the driver could read the beginning of each file
            raise InputNotFound(f"on a worker: {error.cause}", remedy=self._remedy) from error
        return parts

    @property
    def _remedy(self) -> str:
        if self.files[0].path is None:
            return "give the workers credentials that may read it, and network access to its endpoint"
        return "put INPUT on storage that the driver and all workers can read"


def open_files(job: ScoreJob) -> FilesInput:
    """The files of a job; raises what `open_source` raises."""
    header = Header(job.options.header, job.signature, job.options.column)
    return FilesInput(open_source(job.source, job.options.input_format, header), header)


def _absolute(file: InputFile) -> InputFile:
    """A local file with its absolute path, which is valid in other processes too."""
    return LocalFile(Path(file.path).absolute(), file.short, file.size, file.identity) if file.path else file
