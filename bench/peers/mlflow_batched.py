"""The pipeline as a pyfunc with one forward pass for the whole frame."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from bench.peers.steps import Steps


class Batched(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """Takes a string column `text` and returns a column of responses."""

    def load_context(self, context: Any) -> None:
        """Load the classifier that was logged with the model."""
        self._steps = Steps(context.artifacts["classifier"], "batched")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """One forward pass per frame."""
        return pd.DataFrame({"text": self._steps.predict(model_input["text"].tolist())})


mlflow.models.set_model(Batched())
