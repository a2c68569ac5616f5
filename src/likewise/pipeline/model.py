"""The pipeline as an MLflow PythonModel. Imported only by the logged script, because it needs MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from likewise.core.errors import RowRefused
from likewise.pipeline.pipeline import Pipeline


class PipelineModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """A pipeline that opens its references by their URIs when MLflow loads the model, like the book's pipeline."""

    def __init__(self, declaration: Mapping[str, object]) -> None:
        super().__init__()
        self._declaration = declaration
        self._pipeline: Pipeline | None = None

    def load_context(self, context: Any) -> None:  # noqa: ARG002
        """Open the pipeline; `mlflow.pyfunc.load_model` calls this once."""
        self._pipeline = Pipeline.from_declaration(self._declaration, allow_code=True).open()

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Takes a frame with a string column `text`, and returns one with the answers and the same index.

        Raises MlflowException (400 in MLflow's server) with the number of a row that is null or not a string.
        """
        pipeline = self._opened()
        try:
            answers = pipeline.answer(model_input["text"].tolist())
        except RowRefused as error:
            raise MlflowException(error.cause, error_code=INVALID_PARAMETER_VALUE) from error
        return pd.DataFrame({"text": answers}, index=model_input.index)

    def trace(self, text: str) -> list[dict[str, object]]:
        """What each step adds to a text, see `Pipeline.trace`."""
        return self._opened().trace(text)

    def _opened(self) -> Pipeline:
        if self._pipeline is None:
            self.load_context(None)
        assert self._pipeline is not None  # noqa: S101
        return self._pipeline
