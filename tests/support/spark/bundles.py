"""Models of the tests of Spark that log what they are asked, and what models answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tests.support.models import upper_bundle

from likewise import api
from likewise.testing import models

ASKED = "asked.txt"
OPENED = "opened.txt"
PYFUNC_PREDICTING = """
if any("poison" in text for text in texts):
    raise ValueError("poison")
log({asked!r}, *texts)
"""
QUICK_PREDICTING = """
    if "poison" in text:
        raise ValueError("poison")
    with open({asked!r}, "a") as stream:
        stream.write(text + chr(10))
    time.sleep({seconds})
"""


def logging_bundle(folder: Path) -> api.Bundle:
    """A pyfunc that answers each text in capitals and its length, and raises on `poison`.

    It writes its process into `folder`/opened.txt when it loads, and each text into `folder`/asked.txt.
    """
    bundle = upper_bundle(
        folder / "logging-bundle",
        lengths=True,
        loading=f"log({str(folder / OPENED)!r}, os.getpid())",
        predicting=PYFUNC_PREDICTING.format(asked=str(folder / ASKED)),
    )
    return api.open_bundle(bundle, trust=True)


def quick_bundle(folder: Path, seconds: float) -> api.Bundle:
    """One that takes `seconds` a row, writes each text into `folder`/asked.txt, and needs no library."""
    predicting = QUICK_PREDICTING.format(asked=str(folder / ASKED), seconds=seconds)
    return api.open_bundle(models.upper_bundle(folder / "quick-bundle", "", predicting=predicting), trust=True)


def log_of(folder: Path, name: str) -> list[str]:
    """The lines of `asked.txt` or `opened.txt`."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def predicted(bundle: api.Bundle, texts: Sequence[str | None]) -> list[str]:
    """What `Bundle.predict` says of each text."""
    return list(bundle.predict(pd.DataFrame({"text": texts}))["text"])
