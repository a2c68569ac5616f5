"""Logs models to the folder `argv[1]`, with whatever version of MLflow runs it, and writes what they answer.

Runs with MLflow 2.9 and newer, so it uses nothing that one of these lacks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression


class Marked(mlflow.pyfunc.PythonModel):
    """Appends the param `mark` to each text."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return [f"{text}{(params or {}).get('mark', '!')}" for text in model_input["text"]]


def main(folder: Path) -> None:
    """Write the models `signed`, `unsigned` and `pyfunc`, and `answers.json`."""
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(frame, [0, 0, 1, 1])
    mlflow.sklearn.save_model(
        model, str(folder / "signed"), signature=infer_signature(frame, model.predict(frame)), input_example=frame
    )
    mlflow.sklearn.save_model(model, str(folder / "unsigned"))
    texts = pd.DataFrame({"text": ["a", "b"]})
    signature = infer_signature(texts, ["a!"], params={"mark": "!"})
    mlflow.pyfunc.save_model(
        str(folder / "pyfunc"), python_model=Marked(), signature=signature, input_example=(texts, {"mark": "?"})
    )
    predicted = mlflow.pyfunc.load_model(str(folder / "pyfunc")).predict(texts, params={"mark": "?"})
    answers = {"signed": model.predict(frame).tolist(), "pyfunc": list(predicted), "mlflow": mlflow.__version__}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
