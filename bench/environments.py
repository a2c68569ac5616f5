"""Virtual environments of what is measured beside us: `.bench/envs/NAME`, made when first asked for."""

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
"""In an environment: the text of the requirements that it was made from. Without it, or with another, it is made."""


def python_of(name: str, wanted: str, install: Sequence[str]) -> Path:
    """The interpreter of the environment `name`, made by `pip install` with the arguments `install` where it is not.

    wanted: what the environment depends on, kept in its stamp.  Raises SystemExit where pip fails, with its last lines.
    """
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"  making the environment {folder} …", flush=True)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", *install)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path, *names: str) -> dict[str, str]:
    """The installed versions of `names`, or of everything."""
    held = {each.name.lower(): each.version for each in distributions(path=[str(site_packages(python))])}
    return {name: held.get(name, "not installed") for name in names or sorted(held)}


def site_packages(python: Path) -> Path:
    """Where the environment of `python` keeps its packages."""
    return next(python.parents[1].glob("lib/python3*/site-packages"))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(argv)} failed:\n{said}")
