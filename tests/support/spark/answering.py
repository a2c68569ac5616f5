"""A pyfunc that describes its input, or returns one of several answers, by the parameter `answer`."""

from __future__ import annotations

import os
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd

VARIABLE = "LIKEWISE_TEST_VARIABLE"


class Answering(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.loaded = f"{os.environ.get(VARIABLE)} {context.model_config.get('alpha')}"

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        return getattr(self, (params or {})["answer"])(model_input)

    def settings(self, frame: Any) -> list[str]:
        return [f"{self.loaded} {os.environ.get(VARIABLE)}"] * len(frame)

    def names(self, frame: Any) -> list[str]:
        return [",".join(map(str, frame.columns))] * len(frame)

    def types(self, frame: Any) -> list[str]:
        """For each row, a line per column: its name and type, the value's type, and the value."""
        columns = [
            [f"{name}: {frame[name].dtype} {type(value).__name__} {value!r}" for value in frame[name].tolist()]
            for name in frame.columns
        ]
        return ["\n".join(lines) for lines in zip(*columns, strict=True)]

    def shapes(self, tensors: Any) -> list[str]:
        return [f"{one.shape} {one.tolist()}" for one in (tensors["x"] if isinstance(tensors, dict) else tensors)]

    def columns(self, frame: Any) -> Any:
        rows = len(frame)
        return pd.DataFrame(
            {
                "wide": np.full(rows, 2**40),
                "small": np.full(rows, 3, "int32"),
                "text": ["a"] * rows,
                "single": np.full(rows, 0.1, "float32"),
                "double": np.full(rows, np.nan),
                "flag": np.full(rows, True),
                "object": pd.Series([7] * rows, dtype=object),
            }
        )

    def nested(self, frame: Any) -> dict[str, Any]:
        rows = len(frame)
        return {
            "number": np.full(rows, 3),
            "matrix": np.full((rows, 2), 1.5),
            "holes": [np.array([1.0, np.nan])] * rows,
            "deep": [[[1, 2]]] * rows,
            "pairs": [[{"a": 1, "b": "x"}]] * rows,
            "mapping": [{"k": 1}] * rows,
            "record": [{"a": 1, "b": "x"}] * rows,
        }

    def tuples(self, frame: Any) -> list[Any]:
        return [[(1, "x"), (2, "y")]] * len(frame)

    def arrays(self, frame: Any) -> list[Any]:
        return [np.arange(4.0).reshape(2, 2)] * len(frame)

    def matrix(self, frame: Any) -> Any:
        return np.full((len(frame), 2), 1.5)

    def anything(self, frame: Any) -> list[Any]:
        return [{"a": [1, None]}] * len(frame)

    def when(self, frame: Any) -> Any:
        return pd.Series(pd.to_datetime(["2024-07-01 08:00"] * len(frame)))

    def doubles(self, frame: Any) -> list[float]:
        return [0.5] * len(frame)


mlflow.models.set_model(Answering())
