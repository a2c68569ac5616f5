"""The input of a job: its files as one stream of chunks, in the order of the file names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from likewise.batch.files import InputFile, LocalFile, read_errors, why_changed
from likewise.batch.formats import PREDICTIONS, Chunk, RowSource, open_file, require_format
from likewise.batch.header import WITH_HEADER, Header
from likewise.batch.inputs import InputColumns
from likewise.batch.job import ScoreJob
from likewise.batch.listing import list_files
from likewise.core.errors import InputInvalid, InputNotFound, WrongUsage

INPUT_CHANGED_REMEDY = "run the job again when nothing writes to its input"


def open_source(source: str | Path, format_name: str | None = None, header: Header = WITH_HEADER) -> Files:
    """Open a file, a folder or a glob pattern, local or `s3://`, as a stream of chunks.  header: of CSV files.

    Raises InputNotFound if no file can be opened; InputInvalid if a file is not valid in its format, already has a
    column `predictions`, or has other columns than the first file; WrongUsage if neither the suffix nor `format_name`
    determines the format.
    """
    files = list_files(str(source), any_suffix=format_name is not None)
    name = format_name or _one_format(files)
    if name != "csv":
        refuse_header(header, str(source))
    parts = [_open(file, name, header) for file in files]
    if parts[0].format != "jsonl":  # in which columns may differ from row to row
        for part in parts[1:]:
            _require_alike(parts[0], part)
    return Files(str(source), parts, header)


def open_files(job: ScoreJob) -> Files:
    """The files of a job; raises what `open_source` raises."""
    header = Header(job.options.header, job.signature, job.options.column)
    return open_source(job.source, job.options.input_format, header)


def refuse_header(header: Header, source: str) -> None:
    """Raise WrongUsage if there is no header."""
    if header.absent:
        raise WrongUsage(f"{source} is not CSV, so it has no header", remedy="omit --header absent")


def _open(file: InputFile, name: str, header: Header) -> RowSource:
    with read_errors(file):
        source = open_file(file, name, header)
    if PREDICTIONS in source.columns:
        raise has_predictions_column(file.name)
    return source


def _one_format(files: Sequence[InputFile]) -> str:
    """The format of all files; InputInvalid if they differ."""
    first = require_format(files[0].name)
    for file in files[1:]:
        if (other := require_format(file.name)) != first:
            raise InputInvalid(
                f"{files[0].name} is {first} and {file.name} is {other}, but a job reads files of one format",
                remedy="select the files of one format, for example with a glob pattern: 'FOLDER/*.csv'",
            )
    return first


def _require_alike(first: RowSource, other: RowSource) -> None:
    """InputInvalid unless two files have the same columns with the same types; their order may differ."""
    ours, theirs = set(first.columns), set(other.columns)
    for complete, incomplete, missing in ((first, other, ours - theirs), (other, first, theirs - ours)):
        if missing:
            raise InputInvalid(
                f"{complete.name} has a column `{min(missing)}`, but {incomplete.name} does not",
                remedy="score the files separately, or give them the same columns",
            )
    if first.textual:
        return
    types, others = first.schema(), other.schema()
    for name in first.columns:
        if (a := types.field(name).type) != (b := others.field(name).type):
            raise InputInvalid(
                f"the column `{name}` is {a} in {first.name}, but {b} in {other.name}",
                remedy="score the files separately, or write one of them again with the types of the other",
            )


class Files:
    """Several files of one format and with the same columns as one `likewise.batch.formats.RowSource`.

    As the `Input` of a job: a row is identified by its file and its position in that file.
    """

    numbered_on = False

    def __init__(self, name: str, parts: Sequence[RowSource], header: Header = WITH_HEADER) -> None:
        self.parts = parts
        self._header = header
        self.name = name
        self.format, self.textual = parts[0].format, parts[0].textual
        self.columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
        self.size = sum(part.size for part in parts)
        known = [part.rows for part in parts if part.rows is not None]
        self.rows = sum(known) if len(known) == len(parts) else None

    @property
    def files(self) -> Sequence[InputFile]:
        """The input files, one per part."""
        return [file for part in self.parts for file in part.files]

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        """The chunks of all files in order; InputInvalid if a file becomes unreadable or changes while it is read."""
        before = 0
        for part, file in zip(self.parts, self.files, strict=True):
            with read_errors(file):
                for chunk in part.chunks(rows, past):
                    yield replace(chunk, offset=before + chunk.offset)
                    past -= 1
                changed = why_changed(file)
            if changed:
                raise InputInvalid(changed, remedy=INPUT_CHANGED_REMEDY)
            before += part.size

    def schema(self) -> Any:
        """All columns with their types. The parts have equal schemas, except for JSON Lines."""
        return self.parts[0].schema(*self.parts[1:])

    @property
    def identity(self) -> object:
        """The identities of the files, by absolute path or URL."""
        return {str(file.path.resolve()) if file.path else file.name: file.identity for file in self.files}

    def described(self, output: str) -> InputColumns:
        """The columns, with types if the format `output` needs them."""
        types = None if output == "jsonl" and self.format != "parquet" else self.schema()
        return InputColumns(self.columns, self.name, self.format, self.textual, types)

    def cut(self, workers: Any, rows: int, folder: str) -> Sequence[Mapping[str, Any]]:
        """See `likewise.batch.inputs.Input`; the files are on storage that the workers share, or objects in S3."""
        files = [
            replace(each, path=each.path.absolute()) if isinstance(each, LocalFile) else each for each in self.files
        ]
        try:
            parts: Sequence[Mapping[str, Any]] = workers.cut(
                len(files), (files, self.format, self._header, rows, folder)
            )
        except InputNotFound as error:  # the driver could read the beginning of each file
            where = "put INPUT on storage that the driver and all workers can read"
            if files[0].path is None:
                where = "give the workers credentials that may read it, and network access to its endpoint"
            raise InputNotFound(f"on a worker: {error.cause}", remedy=where) from error
        return parts

    def changed(self) -> str | None:
        """A message if a file has changed since it was listed; None if not, or if it cannot be checked."""
        with suppress(OSError):
            return next(filter(None, map(why_changed, self.files)), None)
        return None


def has_predictions_column(where: str) -> InputInvalid:
    """The error for an input that already has the column that a job adds."""
    return InputInvalid(f"{where} already has a column `{PREDICTIONS}`", remedy="rename or remove it in the input")
