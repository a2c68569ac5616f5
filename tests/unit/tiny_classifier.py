"""The small classifier of `likewise.testing` as MLflow's `transformers` flavour keeps one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from likewise.testing.classifier import POSITIONS, TEXTS, make_classifier

__all__ = ["POSITIONS", "TEXTS", "as_mlflow_flavour", "make_classifier"]


def as_mlflow_flavour(plain: Path, folder: Path) -> Path:
    """The same files where MLflow's `transformers` flavour puts them."""
    shutil.copytree(plain, folder / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    (folder / "components" / "tokenizer").mkdir(parents=True)
    shutil.copy(plain / "tokenizer.json", folder / "components" / "tokenizer")
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"transformers": {"model_binary": "model"}}}))
    return folder
