"""The example notebook runs in a new kernel, and its stored output is that of its cells."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path("examples/notebook/your_own_model.ipynb")
VARIABLE = re.compile(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d|https?://[\w.:]+|sha256:[0-9a-f]+|\d[\d,]*\.?\d* (?:s|ms|rows/s|MB)\b|/[\w./-]+"
)


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(NOTEBOOK, as_version=4)
    (tmp_path / "work").mkdir()
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path / "work")}})
    return client.execute()


@pytest.mark.long
def test_notebook_runs_and_shows_what_it_stores(executed: nbformat.NotebookNode) -> None:
    if os.environ.get("LIKEWISE_WRITE_DOCS"):
        for cell in executed.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(executed, NOTEBOOK)
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert [_texts(cell) for cell in executed.cells] == [_texts(cell) for cell in stored.cells]
    html = "".join(str(cell.get("outputs", "")) for cell in executed.cells)
    assert "<progress" in html
    assert "All backends agree" in html


def _texts(cell: nbformat.NotebookNode) -> list[str]:
    """The plain text of a cell's outputs, without what differs from run to run."""
    outputs = [each.get("text") or each.get("data", {}).get("text/plain", "") for each in cell.get("outputs", ())]
    return [VARIABLE.sub("…", text) for text in outputs]
