"""Follows the tutorials: saves their files, runs their commands and compares the outputs that they show."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.docs.generated import ROOT
from tests.docs.pages import follow, reader
from tests.support.sentiment_store import Store

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the five-minute start was followed, which is part of the test."""
    folder = tmp_path_factory.mktemp("reader") / "work"
    folder.mkdir()
    follow(DOCS / "five-minutes.md", folder, reader(folder.parent))
    return folder


@pytest.mark.long
def test_the_five_minute_start_works_as_written(started: Path) -> None:
    assert (started / "scored.csv").read_text().count("\n") == 151


@pytest.mark.long
def test_the_examples_of_migration_work_as_written(started: Path) -> None:
    follow(DOCS / "migration.md", started, reader(started.parent))


def test_the_chapter_page_works_as_written(store: Store, tmp_path: Path) -> None:
    """With the demo's bundle; `likewise demo`, which created it, runs the page's other commands of this machine."""
    shutil.copytree(store.bundle, tmp_path / "bundle", copy_function=os.link)
    follow(DOCS / "chapter.md", tmp_path, reader(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("page", ["sklearn", "transformers", "pyfunc", "nightly", "rollback", "ci"])
def test_a_tutorial_works_as_written(started: Path, tmp_path: Path, page: str) -> None:
    folder = tmp_path / "work"
    shutil.copytree(started, folder)
    follow(DOCS / f"tutorial-{page}.md", folder, reader(tmp_path))
