"""`python -m bench.peers.mlflow_save CLASSIFIER FOLDER` saves both pyfuncs as FOLDER/rows and FOLDER/batched."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema


def main(classifier: str, folder: str) -> None:
    """Save both models as files, without a tracking server."""
    text = Schema([ColSpec("string", "text")])
    for name in ("rows", "batched"):
        mlflow.pyfunc.save_model(
            Path(folder, name),
            python_model=str(Path(__file__).with_name(f"mlflow_{name}.py")),
            artifacts={"classifier": classifier},
            signature=ModelSignature(text, text),
            input_example=pd.DataFrame({"text": ["This is the best movie we saw."]}),
            pip_requirements=Path(__file__).with_name("requirements-ray.txt").read_text().split(),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
