"""The time to open a bundle: in place, copied because other users may change its folder, and from that copy."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.options import Options
from likewise.bundles.format import Manifest
from likewise.bundles.open import open_bundle, write_manifest

MEGABYTES = 93  # the demo's bundle
FILES = 20
ROUNDS = 5


def opening(options: Options) -> dict[str, object]:  # noqa: ARG001  it has no options
    """Median seconds of ROUNDS; the files are in the page cache."""
    taken: dict[str, list[float]] = {"in place": [], "copied": [], "copied before": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as work:
            os.environ["LIKEWISE_CACHE_HOME"] = f"{work}/cache"
            folder = _bundle(Path(work, "shared", "bundle"))
            taken["in place"].append(_seconds(folder))
            folder.parent.chmod(0o777)
            taken["copied"].append(_seconds(folder))
            taken["copied before"].append(_seconds(folder))
    return {"megabytes": MEGABYTES, **{name: statistics.median(seconds) for name, seconds in taken.items()}}


def _bundle(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    for number in range(FILES):
        (folder / "model" / f"{number}.bin").write_bytes(os.urandom(MEGABYTES * 1_000_000 // FILES))
    return write_manifest(folder, Manifest({})).path


def _seconds(folder: Path) -> float:
    start = time.perf_counter()
    open_bundle(folder)
    return time.perf_counter() - start
