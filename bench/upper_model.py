"""A minimal model: returns its text in upper case after `seconds` per call; its faults occur only on Ray."""

from __future__ import annotations

import os
import time
from typing import Any

import mlflow
import pandas as pd


class Upper(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """One string column `text` in, the same column out."""

    def load_context(self, context: Any) -> None:
        """Read the duration of a call, and the fault, which is active only in a Ray cluster."""
        on_ray = "RAY_RAYLET_PID" in os.environ
        self.fault = context.model_config.get("fault") if on_ray else None
        self.seconds = float(context.model_config["seconds"]) * (5 if self.fault == "5x slower" else 1)
        if self.fault == "never ready":
            time.sleep(3600)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Convert each row's text to upper case."""
        time.sleep(self.seconds)
        if self.fault == "raises":
            raise ValueError("this version is broken")
        return pd.DataFrame({"text": model_input["text"].str.upper()})


mlflow.models.set_model(Upper())
