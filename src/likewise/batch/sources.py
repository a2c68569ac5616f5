"""Where the rows come from: the input's files as one stream of chunks, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from likewise.batch.files import InputFile, readable, why_changed
from likewise.batch.formats import PREDICTIONS, Chunk, RowSource, load, of_name
from likewise.batch.listing import list_files
from likewise.core.errors import InputInvalid

STILL = "run the job again when nothing writes to its input"


def open_source(source: str | Path, format_name: str | None = None) -> Files:
    """A file, a folder, a glob, or the like at `s3://`, as a stream of chunks.

    InputNotFound where nothing can be opened, InputInvalid where a file is not what its format says, already has a
    column `predictions` or other columns than the first file; WrongUsage where neither suffix nor `format_name` tells
    the format.
    """
    files = list_files(str(source), any_suffix=format_name is not None)
    name = format_name or _one_format(files)
    parts = [_open(file, name) for file in files]
    if parts[0].format != "jsonl":  # where columns come and go by the row
        for part in parts[1:]:
            _require_alike(parts[0], part)
    return Files(str(source), parts)


def _open(file: InputFile, name: str) -> RowSource:
    with readable(file):
        source: RowSource = load(name).open_source(file)
    if PREDICTIONS in source.columns:
        raise predictions_taken(file.name)
    return source


def _one_format(files: Sequence[InputFile]) -> str:
    first = of_name(files[0].name)
    for file in files[1:]:
        if (other := of_name(file.name)) != first:
            raise InputInvalid(
                f"{files[0].name} is {first} and {file.name} is {other}: one job reads one format",
                remedy="name the files of one format, for example with a glob: 'FOLDER/*.csv'",
            )
    return first


def _require_alike(first: RowSource, other: RowSource) -> None:
    """InputInvalid where two files do not have the same columns; their order may differ."""
    here, there = set(first.columns), set(other.columns)
    for having, lacking, names in ((first, other, here - there), (other, first, there - here)):
        if names:
            raise InputInvalid(
                f"{having.name} has a column `{min(names)}` and {lacking.name} has none",
                remedy="score them apart, or give them the same columns",
            )
    if first.textual:
        return
    types, others = first.schema(), other.schema()
    for name in first.columns:
        if (a := types.field(name).type) != (b := others.field(name).type):
            raise InputInvalid(
                f"the column `{name}` is {a} in {first.name} and {b} in {other.name}",
                remedy="score them apart, or write one of them again with the other's types",
            )


class Files:
    """Files of one format and the same columns as one source; see `likewise.batch.formats.Source`."""

    def __init__(self, name: str, parts: Sequence[RowSource]) -> None:
        self.parts = parts
        self.name = name
        self.format, self.textual = parts[0].format, parts[0].textual
        self.columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
        self.size = sum(part.size for part in parts)
        known = [part.rows for part in parts if part.rows is not None]
        self.rows = sum(known) if len(known) == len(parts) else None

    @property
    def files(self) -> Sequence[InputFile]:
        """One a part."""
        return [file for part in self.parts for file in part.files]

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        """The rows of one file after the other; InputInvalid where one cannot be read on, or changed meanwhile."""
        before = 0
        for part, file in zip(self.parts, self.files, strict=True):
            with readable(file):
                for chunk in part.chunks(rows, past):
                    yield replace(chunk, offset=before + chunk.offset)
                    past -= 1
                changed = why_changed(file)
            if changed:
                raise InputInvalid(changed, remedy=STILL)
            before += part.size

    def schema(self) -> Any:
        """All columns with their types; the parts' are equal, unless they are JSON lines."""
        return self.parts[0].schema(*self.parts[1:])

    def changed(self) -> str | None:
        """A sentence where a file is no longer what it was; None too where that cannot be told."""
        with suppress(OSError):
            return next(filter(None, map(why_changed, self.files)), None)
        return None


def predictions_taken(where: str) -> InputInvalid:
    """The error for an input that already has the column that a job adds."""
    return InputInvalid(
        f"{where} already has a column `{PREDICTIONS}`", remedy="rename or drop that column of the input"
    )
