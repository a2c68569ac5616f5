"""wrk (Debian package `wrk`), for servers that it can saturate with plain requests."""

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
    """SystemExit where wrk is not installed."""
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
    """Figures of `seconds` after a few that warm the server.

    settle: asks something in between, which is answered when what the warming's callers left behind is done.
    bodies: a file of request bodies, one a line, taken in turn; None: numbered texts, every one different.
    fresh: where in them the measured stretch begins, so that what warmed the server is not asked again.
    """
    load(url, WARM_S, connections, bodies, 0)
    settle()
    return load(url, seconds, connections, bodies, fresh)


def medians(runs: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """By name, the median of every figure over its runs."""
    return {name: {key: statistics.median(run[key] for run in some) for key in some[0]} for name, some in runs.items()}


def load(url: str, seconds: float, connections: int, bodies: Path | None, start: int) -> Figures:
    """Figures of one stretch; its first request is the body, or the number, after the first `start`."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "60s", "-s", str(SCRIPT), url]
    environment = {**os.environ, "BODIES": str(bodies or ""), "START": str(start)}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))
