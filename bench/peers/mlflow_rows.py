"""The pipeline as a pyfunc that processes one row at a time."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from bench.peers.steps import Steps


class Rows(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """Takes a string column `text` and returns a column of responses."""

    def load_context(self, context: Any) -> None:
        """Load the classifier that was logged with the model."""
        self._steps = Steps(context.artifacts["classifier"], "rows")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """One forward pass per row."""
        return model_input.map(lambda text: self._steps.predict([text])[0])


mlflow.models.set_model(Rows())
