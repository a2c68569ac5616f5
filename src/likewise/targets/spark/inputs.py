"""The input of a job on Spark: files, or a table that Spark reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.batch.files import InputFile
from likewise.batch.formats import PREDICTIONS
from likewise.batch.header import Header
from likewise.batch.inputs import Input, InputColumns
from likewise.batch.job import ScoreJob
from likewise.batch.sources import has_predictions_column, open_files, refuse_header
from likewise.core.errors import InputNotFound
from likewise.core.extras import need
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.session import TIME_ZONE

TABLE = "table:"


class TableInput:
    """A table or view in Spark's catalog. Its rows have no fixed identity: they are numbered as they are read."""

    format = "parquet"
    textual = False
    size: int | None = None
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

    def described(self, output: str) -> InputColumns:  # noqa: ARG002
        return InputColumns(tuple(self._types.names), self._name, types=self._types, zone=self._zone)

    def cut(self, workers: Jobs, rows: int, folder: str) -> list[Mapping[str, Any]]:
        return workers.run_on(self._frame, "tasks:read_table", (self._name, self._types, rows, folder))


def open_input(spark: Any, job: ScoreJob) -> Input:
    """`table:NAME`, or files as for the local runner; raises what `open_files` raises."""
    if job.source.startswith(TABLE):
        refuse_header(Header(job.options.header, job.signature, job.options.column), job.source)
        return TableInput(spark, job.source.removeprefix(TABLE))
    return open_files(job)
