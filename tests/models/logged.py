"""Logging the models of the zoo: each with rows to predict, in the installed versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import mlflow
from mlflow.models import infer_signature

SEED = 20260101


@dataclass(frozen=True)
class Logged:
    """uri: of the logged model.  data, params: the arguments of `mlflow.pyfunc.load_model(uri).predict`."""

    uri: str
    data: Any
    params: dict[str, Any] | None = None


def log(
    flavour: Any,
    model: Any,
    data: Any,
    output: Any = None,
    *,
    requires: Sequence[str],
    signed: bool | None = True,
    example: Any = None,
    params: dict[str, Any] | None = None,
    **options: Any,
) -> Logged:
    """Log `model` (None: `options` contain it), whose predictions for `data` are `output`.

    requires: distributions, pinned to the installed versions, so that MLflow need not run the model to infer them.
    example: `data` by default; False for none.  signed: whether the model has a signature; None: the one that MLflow
    derives from its type hints.
    """
    arguments = {"input_example": data if example is None else example, **options}
    if example is False:
        del arguments["input_example"]
    signature = infer_signature(data, output, params) if signed else signed
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", *requires)]
    with mlflow.start_run():
        positional = () if model is None else (model,)
        info = flavour.log_model(*positional, name="m", signature=signature, pip_requirements=pins, **arguments)
    return Logged(info.model_uri, data, params)
