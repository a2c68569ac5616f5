"""The pipeline as a pyfunc that takes the whole frame through the model at once."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from bench.peers.steps import Steps


class Batched(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """One string column `text` in, one of answers out."""

    def load_context(self, context: Any) -> None:
        """Opens the classifier that was logged with the model."""
        self._steps = Steps(context.artifacts["classifier"], "batched")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """One forward pass a frame."""
        return pd.DataFrame({"text": self._steps.answer(model_input["text"].tolist())})


mlflow.models.set_model(Batched())
