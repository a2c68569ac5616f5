"""The book's pipeline as a hand-written pyfunc: it loads a fine-tuned transformers model by its URI."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pandas as pd


class InferencePipeline(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """One string column `text` in, a column of JSON responses out; one forward pass per row."""

    def load_context(self, context: Any) -> None:
        """Load the classifier by its URI, as the book does."""
        self.uri = context.model_config["finetuned_model_uri"]
        self.classifier = mlflow.transformers.load_model(self.uri)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Classify each row."""
        return pd.DataFrame({"text": [self._respond(text) for text in model_input["text"]]})

    def _respond(self, text: str) -> str:
        (best,) = self.classifier([text], truncation=True)
        response = {"response": {"prediction_label": [best["label"]]}, "model_metadata": {"uri": self.uri}}
        return json.dumps(response)


mlflow.models.set_model(InferencePipeline())
