"""The model of the tests of Spark that logs what it is asked, and what models answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tests.support.models import upper_bundle

from likewise import api

ASKED = "asked.txt"
OPENED = "opened.txt"
PREDICTING = """
if any("poison" in text for text in texts):
    raise ValueError("poison")
log({asked!r}, *texts)
time.sleep({seconds} * len(texts))
"""


def logging_bundle(folder: Path, *, seconds: float = 0.0, plain: bool = False) -> api.Bundle:
    """The model `Upper`, which answers each text and its length in `seconds`, and raises on `poison`.

    It writes its process into `folder`/opened.txt when it loads, and each text into `folder`/asked.txt. plain: see
    `upper_bundle`.
    """
    bundle = upper_bundle(
        folder / "logging-bundle",
        plain=plain,
        lengths=True,
        loading=f"log({str(folder / OPENED)!r}, os.getpid())",
        predicting=PREDICTING.format(asked=str(folder / ASKED), seconds=seconds),
    )
    return api.open_bundle(bundle, trust=True)


def log_of(folder: Path, name: str) -> list[str]:
    """The lines of `asked.txt` or `opened.txt`."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def predicted(bundle: api.Bundle, texts: Sequence[str | None]) -> list[str]:
    """What `Bundle.predict` says of each text."""
    return list(bundle.predict(pd.DataFrame({"text": texts}))["text"])
