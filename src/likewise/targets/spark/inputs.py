"""The input of a job: files that Likewise's readers read, one per task, or a table that Spark reads.

identity: changes when the content changes, as far as this can be detected. size: bytes, None if unknown. numbered_on:
rows are numbered across all parts instead of within each. columns: the columns, with types if the output format needs
them. inferred_types: see `likewise.batch.columns.inferred_types`. cut: writes chunk files of at most `rows` rows to
`folder`, and returns the tasks' result for each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from likewise.batch.columns import inferred_types
from likewise.batch.files import InputFile, LocalFile
from likewise.batch.formats import PREDICTIONS
from likewise.batch.header import Header
from likewise.batch.job import Types
from likewise.batch.sources import Files, has_predictions_column, open_source, refuse_header
from likewise.core.errors import InputNotFound
from likewise.core.extras import need
from likewise.core.signature import Signature
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.session import TIME_ZONE
from likewise.targets.spark.windows import InputColumns

TABLE = "table:"


class FilesInput:
    """Files on storage that the driver and the executors share, or objects in S3, which executors read directly.

    A row is identified by its file and its position in that file.
    """

    numbered_on = False

    def __init__(self, source: Files, header: Header) -> None:
        self._source = source
        self._header = header
        self.format, self.size = source.format, source.size

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

    def cut(self, jobs: Jobs, rows: int, folder: str) -> list[Mapping[str, Any]]:
        try:
            return jobs.run_numbered(
                "tasks:read_files", len(self.files), (self.files, self.format, self._header, rows, folder)
            )
        except InputNotFound as error:  # the driver could read the beginning of each file
            raise InputNotFound(f"on an executor: {error.cause}", remedy=self._remedy) from error

    @property
    def _remedy(self) -> str:
        if self.files[0].path is None:
            return "give the executors credentials that may read it, and network access to its endpoint"
        return "put INPUT on storage that the driver and all executors can read"


class TableInput:
    """A table or view in Spark's catalog. Its rows have no fixed identity: they are numbered as they are read."""

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
        self._zone: str = spark.conf.get(TIME_ZONE)
        self._types = need("pyspark.sql.pandas.types", extra="spark").to_arrow_schema(schema, timezone="UTC")
        if PREDICTIONS in self._types.names:
            raise has_predictions_column(self._name)

    @property
    def identity(self) -> object:
        return {self._name: str(self._types), "zone": self._zone}

    def columns(self, output: str) -> InputColumns:  # noqa: ARG002
        return InputColumns(tuple(self._types.names), self._name, types=self._types, zone=self._zone)

    def inferred_types(self, signature: Signature) -> Types:  # noqa: ARG002
        return None

    def cut(self, jobs: Jobs, rows: int, folder: str) -> list[Mapping[str, Any]]:
        return jobs.run_on(self._frame, "tasks:read_table", (self._name, self._types, rows, folder))


Input = FilesInput | TableInput


def open_input(spark: Any, source: str, format_name: str | None, header: Header) -> Input:
    """`table:NAME`, or files as for the local runner; raises what `open_source` raises."""
    if source.startswith(TABLE):
        refuse_header(header, source)
        return TableInput(spark, source.removeprefix(TABLE))
    return FilesInput(open_source(source, format_name, header), header)


def _absolute(file: InputFile) -> InputFile:
    """A local file with its absolute path, which is valid in other processes too."""
    return LocalFile(Path(file.path).absolute(), file.short, file.size, file.identity) if file.path else file
