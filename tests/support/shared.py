"""Resources shared by all workers of a run, or by all runs: the first process creates them, the others wait."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path

CACHE = user_cache_path("likewise-tests")  # what later runs use again


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """A lock between processes; the file and its folder are created if missing."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """The folder that `make(folder)` created and its JSON result; runs once per test run and name.

    `make` gets a path that does not exist. If it fails, each other worker tries again.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    result_file = common / f"{name}.json"
    with exclusive(common / f"{name}.lock"):
        if not result_file.exists():
            tries = len(list(common.glob(f"{name}-*")))
            folder = common / f"{name}-{tries}"
            result_file.write_text(json.dumps({"folder": str(folder), "result": make(folder)}))
    document = json.loads(result_file.read_text())
    return Path(document["folder"]), document["result"]
