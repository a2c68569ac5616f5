"""The input of a job on several machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from likewise.batch.columns import inferred_types
from likewise.batch.distributed.input_columns import InputColumns
from likewise.batch.distributed.staging import ChunkFile
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.batch.files import InputFile, LocalFile
from likewise.batch.header import Header
from likewise.batch.job import Types
from likewise.batch.sources import Files
from likewise.core.errors import InputNotFound
from likewise.core.signature import Signature


class Workers(Protocol):
    """The workers of a job, which have the model.

    slots: number of tasks that run at once.  cut: calls `cut_file` with each number below `count`; returns the results.
    score: calls `score_chunk` for each chunk, and updates the tally while they run.  Both raise the first error.
    cancel: ends everything that runs.
    """

    @property
    def slots(self) -> int: ...

    def cut(self, count: int, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]: ...

    def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None: ...

    def cancel(self) -> None: ...


class Input(Protocol):
    """What a job reads.

    format: of the files.  size: bytes, None if unknown.  files: those that the driver can see.  numbered_on: rows are
    numbered across all parts instead of within each.  identity: changes when the content changes, as far as this can be
    detected.  columns: the columns, with types if the output format needs them.  inferred_types: see
    `likewise.batch.columns.inferred_types`.  cut: writes chunk files of at most `rows` rows to `folder`, and returns
    the tasks' result for each part.
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

    def cut(self, workers: Any, rows: int, folder: str) -> list[Mapping[str, Any]]: ...


class FilesInput:
    """Files on storage that the driver and the workers share, or objects in S3, which workers read directly.

    A row is identified by its file and its position in that file.
    """

    numbered_on = False

    def __init__(self, source: Files, header: Header) -> None:
        self._source = source
        self._header = header
        self.format: str = source.format
        self.size: int | None = source.size

    @property
    def files(self) -> Sequence[InputFile]:
        return [_absolute(file) for file in self._source.files]

    @property
    def identity(self) -> object:
        return {file.name: file.identity for file in self.files}

    def columns(self, output: str) -> InputColumns:
        source = self._source
        types = None if output == "jsonl" and source.format != "parquet" else source.schema()
        return InputColumns(source.columns, source.name, source.format, source.textual, types)

    def inferred_types(self, signature: Signature) -> Types:
        return inferred_types(self._source, signature)

    def cut(self, workers: Workers, rows: int, folder: str) -> list[Mapping[str, Any]]:
        try:
            return workers.cut(len(self.files), (self.files, self.format, self._header, rows, folder))
        except InputNotFound as error:  # the driver could read the beginning of each file
            raise InputNotFound(f"on a worker: {error.cause}", remedy=self._remedy) from error

    @property
    def _remedy(self) -> str:
        if self.files[0].path is None:
            return "give the workers credentials that may read it, and network access to its endpoint"
        return "put INPUT on storage that the driver and all workers can read"


def _absolute(file: InputFile) -> InputFile:
    """A local file with its absolute path, which is valid in other processes too."""
    return LocalFile(Path(file.path).absolute(), file.short, file.size, file.identity) if file.path else file
