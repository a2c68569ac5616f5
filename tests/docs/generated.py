"""Pages that are written from the code: compared by tests, written anew with LIKEWISE_WRITE_DOCS=1."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def compare(page: str, text: str) -> None:
    """Assert that `page` (a path in the repository) reads `text`, or write it where that is asked for."""
    path = ROOT / page
    if os.environ.get("LIKEWISE_WRITE_DOCS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{page} is stale: LIKEWISE_WRITE_DOCS=1 make test"
