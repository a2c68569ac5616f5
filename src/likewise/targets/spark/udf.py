"""Predictions as a column: a UDF that replaces MLflow's, and two more columns on batch and streaming frames."""

from __future__ import annotations

import functools
import pickle
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likewise.batch.formats import PREDICTIONS
from likewise.bundles.open import Bundle
from likewise.core import cores, unpack
from likewise.core.errors import InputInvalid, WrongUsage
from likewise.core.extras import need
from likewise.core.items import Params
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.shipping.payload import build_key
from likewise.targets.spark import bootstrap
from likewise.targets.spark.columns import ERROR
from likewise.targets.spark.result_type import result_type_of, spark_type
from likewise.targets.spark.session import TIME_ZONE
from likewise.targets.spark.shipping import ship
from likewise.targets.spark.windows import row_maker
from likewise.targets.spark.worker import Loading

OnError = Literal["raise", "null"]


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model that a session's workers can open. key: the build digest, without its prefix."""

    key: str
    model: ModelSpec
    signature: Signature
    shipment: bootstrap.Shipment | None

    def task(self, call: str, *arguments: object) -> Callable[[Iterator[Any]], Iterator[Any]]:
        """The function that Spark runs: `call` with this model, in a worker that may not have Likewise."""
        return portable(call, (self.key, self.model, self.signature, *arguments), self.shipment)


def portable(
    call: str, arguments: tuple[Any, ...], shipment: bootstrap.Shipment | None
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """`bootstrap.task`, picklable by value so that workers need no Likewise."""
    for module in (bootstrap, cores, unpack):
        need("pyspark.cloudpickle", extra="spark").register_pickle_by_value(module)
    return bootstrap.task(call, pickle.dumps(arguments), shipment)


def place_model(
    spark: Any, bundle: Bundle, model: ModelSpec, always: bool | None, packages: Path | None = None
) -> PlacedModel:
    """Make `bundle` available to the workers; see `ship`, and raises what it raises."""
    shipment = ship(spark, bundle, model, always, packages)
    return PlacedModel(build_key(bundle), model, bundle.signature, shipment)


def column_udf(
    spark: Any,
    placed: PlacedModel,
    result_type: Any,
    params: Params,
    on_error: OnError,
    loading: Loading,
) -> Callable[..., Any]:
    """A function of columns, of one struct of columns, or without arguments (the signature's columns by name).

    It has the attributes of Spark's UDFs, so that it can be registered for SQL.
    """
    if on_error not in ("raise", "null"):
        raise WrongUsage(f"on_error is {on_error!r}", remedy="use 'raise' or 'null'")
    functions = need("pyspark.sql.functions", extra="spark")
    if not hasattr(functions, "arrow_udf"):
        raise WrongUsage("the UDF needs Spark 4.1 or newer", remedy="pip install -U 'pyspark>=4.1'")
    kind = spark_type(result_type, placed.signature, "double")
    result = result_type_of(kind, spark.conf.get(TIME_ZONE), prints=True)
    task = placed.task("columns:predict_columns", _plain_params(params), result, on_error, loading)
    task.__annotations__ = _hints()
    wrapped = functions.arrow_udf(task, kind)

    @functools.wraps(wrapped)
    def predict(*columns: Any) -> Any:
        return wrapped(*(columns or _columns(placed.signature)))

    return predict


def _plain_params(params: Params) -> dict[str, object] | None:
    """Params with NumPy's values as Python's, which is what the model gets from MLflow too."""
    if params is None:
        return None
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in params.items()}


def _hints() -> dict[str, Any]:
    """Type annotations from which Spark infers that batches are passed as an iterator."""
    array = need("pyarrow", extra="batch").Array
    many = types.GenericAlias(tuple, (array, ...))
    return {"batches": types.GenericAlias(Iterator, (many,)), "return": types.GenericAlias(Iterator, (array,))}


def _columns(signature: Signature) -> tuple[str, ...]:
    if signature.columns is None:
        raise WrongUsage("the model's signature names no columns", remedy="pass the columns: udf('review')")
    if optional := [field.name for field in signature.inputs or () if not field.required]:
        raise WrongUsage(
            f"the model's column `{optional[0]}` is optional, so the columns cannot be inferred",
            remedy="pass the columns: udf(struct('a', 'b'))",
        )
    return signature.columns


def with_predictions(
    frame: Any,
    placed: PlacedModel,
    result_type: Any,
    params: Params,
    mapping: Mapping[str, str],
    name: str,
) -> Any:
    """`frame` with the columns `name` and `error`; see `likewise.spark.score_frame`."""
    sql = need("pyspark.sql.types", extra="spark")
    for taken in (name, ERROR, PREDICTIONS):
        if taken in frame.columns:
            raise InputInvalid(f"the frame already has a column `{taken}`", remedy="rename or drop that column")
    types_of = need("pyspark.sql.pandas.types", extra="spark").to_arrow_schema
    row_maker(types_of(frame.schema, timezone="UTC"), placed.signature, mapping)  # fails early if a column is missing
    kind = spark_type(result_type, placed.signature, "string")
    result = result_type_of(kind, frame.sparkSession.conf.get(TIME_ZONE), prints=False)
    reason = sql.StructType([sql.StructField(part, sql.StringType()) for part in ("code", "cause", "remedy")])
    added = [sql.StructField(name, kind), sql.StructField(ERROR, reason)]
    task = placed.task("columns:extend_frame", _plain_params(params), result, dict(mapping), name)
    return frame.mapInArrow(task, sql.StructType([*frame.schema.fields, *added]))
