"""Pages generated from the code: compared by tests, regenerated with LIKEWISE_WRITE_DOCS=1."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def compare(page: str, text: str) -> None:
    """Assert that `page` (a path in the repository) contains `text`; write it first if LIKEWISE_WRITE_DOCS is set."""
    path = ROOT / page
    if os.environ.get("LIKEWISE_WRITE_DOCS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{page} is stale: LIKEWISE_WRITE_DOCS=1 make test"
