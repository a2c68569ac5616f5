"""A bundle that converts texts to upper case, and that a test can block at a text."""

from __future__ import annotations

from pathlib import Path

from likewise.bundles.open import Bundle, open_bundle
from likewise.testing.models import upper_bundle

PREDICTING = """
    if text.startswith("bad "):
        raise ValueError(text)
    if text.startswith("gate "):
        path = text.removeprefix("gate ")
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.002)
""".strip()


def gated_bundle(folder: Path, mark: str = "") -> Bundle:
    """The bundle; it returns `mark` and the text in upper case, and needs trust.

    A text `bad …` raises; a text `gate PATH` creates the file PATH.begun and waits until PATH exists.
    """
    return open_bundle(upper_bundle(folder, mark, predicting=PREDICTING))
