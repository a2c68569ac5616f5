"""Follows the tutorials: saves their files, runs their commands and compares the outputs that they show."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.docs.generated import ROOT
from tests.docs.pages import follow, reader

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the five-minute start was followed, which is part of the test."""
    folder = tmp_path_factory.mktemp("reader") / "work"
    folder.mkdir()
    follow(DOCS / "five-minutes.md", folder, reader(folder.parent))
    return folder


def test_the_five_minute_start_works_as_written(started: Path) -> None:
    assert (started / "scored.csv").read_text().count("\n") == 151


@pytest.mark.long
@pytest.mark.parametrize("page", ["sklearn", "transformers", "pyfunc", "nightly", "rollback", "ci"])
def test_a_tutorial_works_as_written(started: Path, tmp_path: Path, page: str) -> None:
    folder = tmp_path / "work"
    shutil.copytree(started, folder)
    follow(DOCS / f"tutorial-{page}.md", folder, reader(tmp_path))
