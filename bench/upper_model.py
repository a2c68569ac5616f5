"""A model as small as a model can be, logged by `bench.trivial`: its text in capitals, after `seconds` a call."""

from __future__ import annotations

import time
from typing import Any

import mlflow
import pandas as pd


class Upper(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """One string column `text` in, the same column out."""

    def load_context(self, context: Any) -> None:
        """Reads how long a call takes."""
        self.seconds = float(context.model_config["seconds"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Row by row the same: capitals."""
        time.sleep(self.seconds)
        return pd.DataFrame({"text": model_input["text"].str.upper()})


mlflow.models.set_model(Upper())
