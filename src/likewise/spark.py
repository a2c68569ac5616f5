"""Predictions in Spark: `import likewise.spark`. Needs `likewise[spark]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.api import Bundle, bundle_of
from likewise.targets.spark.udf import OnError, PlacedModel, column_udf, place_model, with_predictions

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
    """A UDF that replaces `mlflow.pyfunc.spark_udf(spark, model_uri, result_type)`.

    Call it with columns in the order of the model's signature, with one `struct` whose fields are matched by name, or
    without arguments (the signature's columns, by name).  It returns one prediction per row.

    model: a bundle's folder, an open bundle, or any MLflow model URI.  result_type: a Spark type or its DDL, by the
    rules of `spark_udf`: the leftmost column of that type in a record, `array<…>` for all of them, `struct<…>` by name;
    by default what the signature declares, else `string`.  on_error: whether a row without a prediction fails the query
    (`raise`) or is null.  ship: whether the bundle and the environment are sent to the executors; by default unless
    Spark runs in local processes.
    Raises WrongUsage, MissingExtra, EngineUnavailable, CodeNotTrusted, and what `likewise.find` raises.
    """
    placed = _placed(spark, model, engine, precision, trust, ship)
    return column_udf(placed, result_type, params or {}, on_error)


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

    One of the two is null in every row: a bad row does not affect other rows.  column: maps columns of the frame to
    columns of the model, `{"review": "text"}`; the other parameters are those of `udf`.
    Raises InputInvalid (a column is missing or its name is taken), and what `udf` raises.
    """
    placed = _placed(frame.sparkSession, model, engine, precision, trust, ship)
    return with_predictions(frame, placed, result_type, params or {}, column or {}, name)


def _placed(
    spark: Any, model: str | Path | Bundle, engine: str | None, precision: str | None, trust: bool, ship: bool | None
) -> PlacedModel:
    bundle = bundle_of(model, trust)
    return place_model(spark, bundle, bundle.spec(engine, precision), ship)
