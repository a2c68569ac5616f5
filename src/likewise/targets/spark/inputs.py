"""What a job reads: files by our own readers, one a task, or a table by Spark.

identity: another one for other content, as far as can be told. size: bytes, None where nobody says. numbered_on: rows
are counted over all parts and not in each. given: the columns, with their types where the output's format needs them.
cut: into chunk files of at most `rows` rows in `folder`; what the tasks say of each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from likewise.batch.files import InputFile, LocalFile
from likewise.batch.formats import PREDICTIONS
from likewise.batch.sources import Files, has_predictions_column, open_source
from likewise.core.errors import InputNotFound
from likewise.core.extras import need
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.windows import Given

TABLE = "table:"


class FilesInput:
    """Files on storage that the driver and the executors share, or objects in S3, which executors read by themselves.

    A row's identity is its file and its place in it.
    """

    numbered_on = False

    def __init__(self, source: Files) -> None:
        self._source = source
        self.format, self.size = source.format, source.size

    @property
    def files(self) -> Sequence[InputFile]:
        return [_absolute(file) for file in self._source.files]

    @property
    def identity(self) -> object:
        return {file.name: file.identity for file in self.files}

    def given(self, output: str) -> Given:
        source = self._source
        types = None if output == "jsonl" else source.schema()
        return Given(source.columns, source.name, source.format, source.textual, types)

    def cut(self, jobs: Jobs, rows: int, folder: str) -> list[Mapping[str, Any]]:
        try:
            return jobs.numbered("tasks:read_files", len(self.files), (self.files, self.format, rows, folder))
        except InputNotFound as error:  # the driver has read the beginning of each
            raise InputNotFound(f"on an executor: {error.cause}", remedy=self._remedy) from error

    @property
    def _remedy(self) -> str:
        if self.files[0].path is None:
            return "give the executors credentials that may read it, and a way to its endpoint"
        return "put INPUT on storage that the driver and all executors share and may read"


class TableInput:
    """A table or view that Spark knows. Its rows have no names of their own: they are counted as they are read."""

    format = "parquet"
    size = None
    numbered_on = True
    files: Sequence[InputFile] = ()

    def __init__(self, spark: Any, table: str) -> None:
        errors = need("pyspark.errors", extra="spark")
        try:
            self._frame = spark.table(table)
            schema = self._frame.schema
        except errors.AnalysisException as error:
            raise InputNotFound(
                f"Spark has no table {table}: {str(error)[:200]}", remedy="check the name, and the session's catalog"
            ) from error
        self._name = TABLE + table
        self._types = need("pyspark.sql.pandas.types", extra="spark").to_arrow_schema(schema, timezone="UTC")
        if PREDICTIONS in self._types.names:
            raise has_predictions_column(self._name)

    @property
    def identity(self) -> object:
        return {self._name: str(self._types)}

    def given(self, output: str) -> Given:  # noqa: ARG002
        return Given(tuple(self._types.names), self._name, types=self._types)

    def cut(self, jobs: Jobs, rows: int, folder: str) -> list[Mapping[str, Any]]:
        return jobs.over(self._frame, "tasks:read_table", (self._name, self._types, rows, folder))


Input = FilesInput | TableInput


def open_input(spark: Any, source: str, format_name: str | None) -> Input:
    """`table:NAME`, or files as the local runner takes them; raises what `open_source` does."""
    if source.startswith(TABLE):
        return TableInput(spark, source.removeprefix(TABLE))
    return FilesInput(open_source(source, format_name))


def _absolute(file: InputFile) -> InputFile:
    """A file of this machine under the name that other processes know it by."""
    return LocalFile(Path(file.path).absolute(), file.short, file.size, file.identity) if file.path else file
