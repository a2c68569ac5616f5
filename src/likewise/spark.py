"""Predictions in Spark: `import likewise.spark`. Needs `likewise[spark]`."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.api import Bundle, bundle_of, environment
from likewise.core.errors import WrongUsage
from likewise.shipping.logged_environment import packages_of
from likewise.targets.spark.udf import OnError, column_udf, place_model, with_predictions
from likewise.targets.spark.udf_arguments import (
    checked_env,
    engine_for_config,
    needs_own_environment,
    read_model_config,
)
from likewise.targets.spark.worker import Loading

__all__ = ["score_frame", "udf"]


def udf(
    spark: Any,
    model_uri: str | Path | Bundle,
    result_type: Any = None,
    env_manager: str | None = None,
    params: Mapping[str, object] | None = None,
    extra_env: Mapping[str, str] | None = None,
    prebuilt_env_uri: str | None = None,
    model_config: Mapping[str, object] | str | Path | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    on_error: OnError = "raise",
    ship: bool | None = None,
) -> Callable[..., Any]:
    """A UDF that replaces `mlflow.pyfunc.spark_udf`, with the same arguments in the same order.

    Call it with columns in the order of the model's signature, with one `struct` whose fields are matched by name, or
    without arguments (the signature's columns, by name).  It returns one prediction per row.

    model_uri: any MLflow model URI, a bundle's folder, or an open bundle.  result_type: a Spark type or its DDL, by the
    rules of `spark_udf`: the leftmost column of that type in a record, `array<…>` for all of them, `struct<…>` by name;
    by default what the signature declares, else `double`.  env_manager: `local` runs the model in the driver's
    environment; `virtualenv`, `uv` and `conda` in one with the versions that it was logged with, which the driver
    creates and sends, unless its own has them.
    extra_env: environment variables of the workers while the model loads and predicts.  model_config: as for
    `mlflow.pyfunc.load_model`, or the path of a YAML or JSON file with it.  on_error: whether a row without a
    prediction fails the query (`raise`) or is null.  ship: whether the bundle and the environment are sent to the
    executors; by default unless Spark runs in local processes.
    Raises WrongUsage, MissingExtra, EngineUnavailable, VersionsDiffer, EnvironmentFailed, CodeNotTrusted, and what
    `likewise.find` raises.
    """
    if prebuilt_env_uri is not None:
        raise WrongUsage(
            "prebuilt_env_uri is an archive for Databricks' serverless workers, which Likewise does not use",
            remedy="omit it: the driver's environment is sent to the executors; ship=False uses the executors' own",
        )
    config = read_model_config(model_config)
    bundle = bundle_of(model_uri, trust, allow_versions)
    choice = engine_for_config(config, engine, precision)
    if needs_own_environment(env_manager, bundle, bundle.uncompared_spec(*choice)):
        if ship is False:
            raise WrongUsage(
                f"env_manager={env_manager!r} demands the environment that the model was logged with, but ship=False "
                "does not send it",
                remedy="omit ship, or env_manager",
            )
        own = environment(bundle, engine=choice[0], trust=trust)
        model, ship = bundle.uncompared_spec(*choice), True
    else:
        own, model = None, bundle.spec(*choice)
    placed = place_model(spark, bundle, model, ship, own and packages_of(own))
    loading = Loading(checked_env(extra_env), pickle.dumps(config) if config else b"", typed=True)
    return column_udf(spark, placed, result_type, params, on_error, loading)


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
    allow_versions: bool = False,
    ship: bool | None = None,
    name: str = "predictions",
) -> Any:
    """`frame`, batch or streaming, with the columns `name` and `error` (code, cause, remedy) added.

    One of the two is null in every row: a bad row does not affect other rows.  column: maps columns of the frame to
    columns of the model, `{"review": "text"}`; the other parameters are those of `udf`, but without a declared
    type predictions are text, and nested values as text are JSON, as in the output of `likewise score`.
    Raises InputInvalid (a column is missing or its name is taken), and what `udf` raises.
    """
    bundle = bundle_of(model, trust, allow_versions)
    placed = place_model(frame.sparkSession, bundle, bundle.spec(engine, precision), ship)
    return with_predictions(frame, placed, result_type, params, column or {}, name)
