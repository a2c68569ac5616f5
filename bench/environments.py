"""Virtual environments of the other tools: `.bench/envs/NAME`, created when first needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from bench.model import FOLDER

ENVIRONMENTS = FOLDER / "envs"
STAMP = "requirements-installed.txt"
"""A file in an environment with its requirements. If it is missing or differs, the environment is created again."""


def python_of(name: str, wanted: str, install: Sequence[str]) -> Path:
    """The interpreter of the environment `name`, created if necessary by `pip install` with the arguments `install`.

    wanted: text that the environment depends on, stored in its stamp. Raises SystemExit with pip's last lines.
    """
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"  creating the environment {folder} …", flush=True)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", *install)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path, *names: str) -> dict[str, str]:
    """The installed versions of `names`, or of all packages."""
    installed = {each.name.lower(): each.version for each in distributions(path=[str(site_packages(python))])}
    return {name: installed.get(name, "not installed") for name in names or sorted(installed)}


def site_packages(python: Path) -> Path:
    """The site-packages folder of the environment of `python`."""
    return next(python.parents[1].glob("lib/python3*/site-packages"))


def _run(*argv: str) -> None:
    completed = subprocess.run(argv, capture_output=True, text=True)
    if completed.returncode != 0:
        output = "\n".join((completed.stdout + completed.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(argv)} failed:\n{output}")
