"""The README does what it promises, in an empty folder; its extras and make targets exist."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from tests.docs.generated import ROOT
from tests.docs.pages import blocks, follow, reader
from tests.support.processes import run
from tests.support.sentiment_store import Store

README = ROOT / "README.md"
TEXT = README.read_text()


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {name for group in re.findall(r"pip install '\.\[([\w,]+)\]'", TEXT) for name in group.split(",")}
    assert installed
    assert installed | set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) <= set(extras)


def test_make_targets_exist() -> None:
    wanted = set(re.findall(r"make (\w+)", TEXT))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test", "docs"} <= wanted
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in wanted)


def test_five_minutes_work_as_written(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    follow(README, folder, reader(tmp_path))
    assert (folder / "scored.csv").read_bytes() == (folder / "again.csv").read_bytes()


@pytest.mark.long
def test_the_page_on_pipelines_works_as_written(store: Store, tmp_path: Path) -> None:
    (code,) = (each.text for each in blocks(ROOT / "docs/pipelines.md") if each.kind == "python")
    (tmp_path / "define.py").write_text(code.replace("runs:/0a1b…/model", store.model_uri))
    run([sys.executable, "define.py"], cwd=tmp_path, env={**store.env, "PYTHONPATH": str(ROOT / "src")})
