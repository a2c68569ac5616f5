"""A bundle that answers in capitals, and that a test can hold at a text."""

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
    """It answers `mark` and the text in capitals; it needs trust.

    A text `bad …` raises; a text `gate PATH` makes the file PATH.begun and is answered once there is PATH.
    """
    return open_bundle(upper_bundle(folder, mark, predicting=PREDICTING))
