"""The pipeline as a pyfunc, one row after another: how the book writes it."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from bench.peers.steps import Steps


class Rows(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """One string column `text` in, one of answers out."""

    def load_context(self, context: Any) -> None:
        """Opens the classifier that was logged with the model."""
        self._steps = Steps(context.artifacts["classifier"], "rows")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """A forward pass a row."""
        return model_input.map(lambda text: self._steps.answer([text])[0])


mlflow.models.set_model(Rows())
