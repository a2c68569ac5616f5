"""Runs the conformance suite for a target of another package, registered by an entry point."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

OUTSIDE = Path(__file__).with_name("outside_target")


@pytest.mark.parametrize(
    ("chosen", "count"),
    [("predictions or creation or options or formats", 5), pytest.param("test", 21, marks=pytest.mark.long)],
)
def test_target_of_another_package_passes_the_conformance_suite(tmp_path: Path, chosen: str, count: int) -> None:
    package = shutil.copytree(OUTSIDE, tmp_path / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    site = install(package, tmp_path / "site")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "tests", "-k", chosen, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 't'}"],
        cwd=package,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(rf"^{count} passed\b(?!.*skipped)", done.stdout, re.MULTILINE), done.stdout[-2000:]


def install(package: Path, site: Path) -> Path:
    """Install the package as an installer would: its modules, and metadata with entry points from pyproject.toml."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"toy_target-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.move(package / "toy_target", site)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
    return site
