"""What all workers of a run share: made by the one that comes first, awaited by the others."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """The folder that `make(folder)` has made, and what it returned (JSON), made once a run under this name.

    `make` gets a path that does not exist. Where it fails, it fails for the others too: they try again.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = common / f"{name}.json"
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            tries = len(list(common.glob(f"{name}-*")))
            folder = common / f"{name}-{tries}"
            made.write_text(json.dumps({"folder": str(folder), "result": make(folder)}))
    document = json.loads(made.read_text())
    return Path(document["folder"]), document["result"]
