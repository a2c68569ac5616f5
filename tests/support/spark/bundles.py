"""Models for the tests of Spark that log the texts that they predict, and reference predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tests.support.models import upper_bundle

from likewise import api
from likewise.testing import models

PREDICTED = "predicted.txt"
OPENED = "opened.txt"
PYFUNC_PREDICTING = """
if any("poison" in text for text in texts):
    raise ValueError("poison")
log({log!r}, *texts)
time.sleep({seconds} * len(texts))
"""
QUICK_PREDICTING = """
    if "poison" in text:
        raise ValueError("poison")
    with open({log!r}, "a") as stream:
        stream.write(text + chr(10))
    time.sleep({seconds})
"""


def logging_bundle(folder: Path, *, seconds: float = 0.0) -> api.Bundle:
    """A pyfunc that returns each text in upper case with its length after `seconds`, and raises on `poison`.

    It appends its process ID to `folder`/opened.txt when it loads, and each text to `folder`/predicted.txt.
    """
    bundle = upper_bundle(
        folder / "logging-bundle",
        lengths=True,
        loading=f"log({str(folder / OPENED)!r}, os.getpid())",
        predicting=PYFUNC_PREDICTING.format(log=str(folder / PREDICTED), seconds=seconds),
    )
    return api.open_bundle(bundle, trust=True)


def quick_bundle(folder: Path, seconds: float) -> api.Bundle:
    """A model that takes `seconds` per row, appends each text to `folder`/predicted.txt, and needs no library."""
    predicting = QUICK_PREDICTING.format(log=str(folder / PREDICTED), seconds=seconds)
    return api.open_bundle(models.upper_bundle(folder / "quick-bundle", "", predicting=predicting), trust=True)


def log_of(folder: Path, name: str) -> list[str]:
    """The lines of `predicted.txt` or `opened.txt`."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def predicted(bundle: api.Bundle, texts: Sequence[str | None]) -> list[str | None]:
    """The predictions of `Bundle.predict` for the texts."""
    predictions = bundle.predict(pd.DataFrame({"text": texts}, dtype=object))["text"]  # else None is NaN
    return [None if pd.isna(prediction) else prediction for prediction in predictions]
