"""Resources shared by all workers of a run: the first worker creates them, the others wait."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """The folder that `make(folder)` created and its JSON result; runs once per test run and name.

    `make` gets a path that does not exist. If it fails, each other worker tries again.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    result_file = common / f"{name}.json"
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result_file.exists():
            tries = len(list(common.glob(f"{name}-*")))
            folder = common / f"{name}-{tries}"
            result_file.write_text(json.dumps({"folder": str(folder), "result": make(folder)}))
    document = json.loads(result_file.read_text())
    return Path(document["folder"]), document["result"]
