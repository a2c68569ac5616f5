"""A result as a file: the figures with the machine, the command and the versions that gave them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from likewise.doctor import examine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("likewise", "mlflow", "torch", "openvino", "pyspark", "uvicorn", "uvloop", "httptools", "starlette")


def surroundings() -> dict[str, object]:
    """Taken before the measurement, for the load that it starts under."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": {f.name: f.found for f in examine() if f.name in ("CPU", "Memory")},
        "versions": {"python": platform.python_version(), **_packages(), "wrk": _wrk(), "commit": _commit()},
        "load_before": round(os.getloadavg()[0], 2),
    }


def save(name: str, before: Mapping[str, object], figures: Mapping[str, object]) -> Path:
    """`results/NAME.json`, printed too."""
    text = json.dumps({**before, name: figures}, indent=2)
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    print(text, flush=True)
    return path


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _wrk() -> str:
    return _said("wrk", "-v").partition("[")[0].strip()


def _commit() -> str:
    changed = " with changes" if _said("git", "status", "--porcelain", "src") else ""
    return _said("git", "rev-parse", "--short", "HEAD").strip() + changed


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parent.parent).stdout
    except FileNotFoundError:
        return "not installed"
