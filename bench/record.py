"""Writes results to files: the figures with the machine, the command and the versions of all software."""

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
    """Machine, command, versions and load; call it before the measurement, so that the load is the initial one."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": {f.name: f.found for f in examine() if f.name in ("CPU", "Memory")},
        "versions": {"python": platform.python_version(), **_packages(), "wrk": _wrk(), "commit": _commit()},
        "load_before": round(os.getloadavg()[0], 2),
    }


def save(name: str, before: Mapping[str, object], figures: Mapping[str, object]) -> Path:
    """Write `results/NAME.json` and print it."""
    text = json.dumps({**before, name: figures}, indent=2)
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    print(text, flush=True)
    return path


def _packages() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def _wrk() -> str:
    return _output("wrk", "-v").partition("[")[0].strip()


def _commit() -> str:
    changed = " with changes" if _output("git", "status", "--porcelain", "src") else ""
    return _output("git", "rev-parse", "--short", "HEAD").strip() + changed


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parent.parent).stdout
    except FileNotFoundError:
        return "not installed"
