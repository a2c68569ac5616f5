"""A model whose rows may be hostile: the first word of a text is what it does; others are returned in upper case."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import mlflow
import pandas as pd


class Panic(BaseException):
    """As a Rust extension raises it."""


def upper(text: str) -> str:
    """The text in upper case, unless it hangs, crashes or raises."""
    match text.partition(" ")[0]:
        case "hang":
            while True:
                time.sleep(3600)
        case "spin":
            sum(range(10**15))  # holds the GIL
        case "crash":
            ctypes.string_at(0)
        case "leave":
            os._exit(3)
        case "exit":
            raise SystemExit(3)
        case "panic":
            raise Panic("index out of bounds")
    return text.upper()


class Hostile(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """One string column `text` in, the same column out."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Convert each row's text."""
        return pd.DataFrame({"text": [upper(text) for text in model_input["text"]]})


mlflow.models.set_model(Hostile())
