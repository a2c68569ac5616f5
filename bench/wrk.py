"""Generates load with wrk (Debian package `wrk`), for servers that plain requests can saturate."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Figures = dict[str, float]

SCRIPT = Path(__file__).with_name("post.lua")
WARM_S = 5


def require() -> None:
    """Raise SystemExit if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")


def warm_load(
    url: str,
    seconds: float,
    connections: int,
    *,
    settle: Callable[[], object],
    bodies: Path | None = None,
    fresh: int = 0,
) -> Figures:
    """Figures of a measurement of `seconds` after a warm-up.

    settle: sends a request in between, which is served when the requests left over from the warm-up are done.
    bodies: a file with one request body per line, used in turn; None: distinct numbered texts.
    fresh: offset in them at which the measurement starts, so that it does not repeat the warm-up's texts.
    """
    load(url, WARM_S, connections, bodies, 0)
    settle()
    return load(url, seconds, connections, bodies, fresh)


def medians(runs: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """By name, the median of each figure over the runs."""
    return {name: {key: statistics.median(run[key] for run in some) for key in some[0]} for name, some in runs.items()}


def load(url: str, seconds: float, connections: int, bodies: Path | None, start: int) -> Figures:
    """Figures of one measurement; its first request is the body or number after the first `start`."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "60s", "-s", str(SCRIPT), url]
    environment = {**os.environ, "BODIES": str(bodies or ""), "START": str(start)}
    completed = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(completed.stdout.splitlines()[-1]))
