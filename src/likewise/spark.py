"""Predictions in Spark: `import likewise.spark`. Needs `likewise[spark]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.api import Bundle, bundle_of
from likewise.core.items import NO_PARAMS
from likewise.targets.spark.udf import OnError, Placed, column_udf, extended, place

__all__ = ["score_frame", "udf"]


def udf(
    spark: Any,
    model: str | Path | Bundle,
    result_type: Any = None,
    *,
    params: Mapping[str, object] | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    on_error: OnError = "raise",
    ship: bool | None = None,
) -> Callable[..., Any]:
    """A UDF in the place of `mlflow.pyfunc.spark_udf(spark, model_uri, result_type)`.

    It is called with columns in the order of the model's signature, with one `struct` of columns by their names, or
    with nothing (the signature's columns by their names), and gives one prediction a row.

    model: a bundle's folder, an open bundle, or any MLflow model URI.  result_type: a type of Spark's or its DDL, by
    the rules of `spark_udf`: of a record the leftmost column of that type, `array<…>` all of them, `struct<…>` by
    name; by default what the signature declares, else `string`.  on_error: a row without an answer fails the query, or
    is null.  ship: whether bundle and environment are sent to the executors; by default unless Spark runs in this
    machine's own processes.
    Raises WrongUsage, MissingExtra, EngineUnavailable, CodeNotTrusted, and what `likewise.find` does.
    """
    placed = _placed(spark, model, engine, precision, trust, ship)
    return column_udf(placed, result_type, params or NO_PARAMS, on_error)


def score_frame(
    frame: Any,
    model: str | Path | Bundle,
    *,
    column: Mapping[str, str] | None = None,
    result_type: Any = None,
    params: Mapping[str, object] | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    ship: bool | None = None,
    name: str = "predictions",
) -> Any:
    """`frame`, batch or streaming, with the columns `name` and `error` (code, cause, remedy) added.

    One of the two is null in every row: a bad row costs nobody else's answer.  column: which of the frame's columns
    feeds which of the model's, `{"review": "text"}`; the others as in `udf`.
    Raises InputInvalid (a column is missing or its name is taken), and what `udf` does.
    """
    placed = _placed(frame.sparkSession, model, engine, precision, trust, ship)
    return extended(frame, placed, result_type, params or NO_PARAMS, column or {}, name)


def _placed(
    spark: Any, model: str | Path | Bundle, engine: str | None, precision: str | None, trust: bool, ship: bool | None
) -> Placed:
    found = bundle_of(model, trust)
    return place(spark, found, found.spec(engine, precision), ship)
