"""Startup time, memory and installed size of a server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.request import urlopen

from bench.environments import python_of, site_packages, versions
from bench.model import SOURCES, body, subject, texts
from bench.options import Options
from bench.processes import proportional_mb, resident_mb
from bench.servers import CHECKOUT, START_S, NoResponse, Server, started
from likewise.core.digests import sha256_json

STARTS = 5
POLL_S = 0.005
REVIEWS = 500
CONNECTIONS = 8
LARGEST = 10
EXTRA = "openvino"
LOCK = CHECKOUT / "requirements.lock"


def footprint(options: Options) -> dict[str, object]:
    """The footprint of `likewise serve` in an environment with only `likewise[openvino]` from this checkout."""
    python, bundle = _environment(), subject().bundle
    reviews = texts(options.reviews or REVIEWS)
    argv = [str(python.parent / "likewise"), "serve", str(bundle), "-p", "PORT"]
    _start(argv, python)  # fills the file cache
    starts = [_start(argv, python) for _ in range(options.rounds or STARTS)]
    return {
        "seconds_to_ready": round(statistics.median(starts), 3),
        "starts": [round(one, 3) for one in starts],
        "memory_mb": {
            "default": _memory(argv, python, reviews),
            "--exact": _memory([*argv, "--exact"], python, reviews),
        },
        "reviews": len(reviews),
        "installed_mb": _installed(site_packages(python)),
        "environment": versions(python),
    }


def _environment() -> Path:
    """The interpreter of `.bench/envs/serving`, which is created again if the code or the lock has changed."""
    sources = {str(path): path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.py"))}
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = sha256_json([sources, project, LOCK.read_text(encoding="utf-8")])
    return python_of("serving", wanted, [f"{CHECKOUT}[{EXTRA}]", "-c", str(LOCK)])


def _start(argv: Sequence[str], python: Path) -> float:
    """Seconds from the process's start until it reports that it is ready."""
    with started(argv, python=str(python)) as server:
        return _ready(server)


def _ready(server: Server) -> float:
    while True:
        try:
            urlopen(f"http://127.0.0.1:{server.port}/ready", timeout=START_S).close()
            return time.perf_counter() - server.started_at
        except OSError as error:
            if server.process.poll() is not None or time.perf_counter() - server.started_at > START_S:
                raise NoResponse(f"the server is not ready: {error}") from error
            time.sleep(POLL_S)


def _memory(argv: Sequence[str], python: Path, reviews: Sequence[str]) -> dict[str, dict[str, float]]:
    with started(argv, python=str(python)) as server, ThreadPoolExecutor(CONNECTIONS) as clients:
        _ready(server)
        ready = _resident(server)
        for _ in clients.map(server.post, map(body, reviews)):
            pass
        return {"at_ready": ready, "after_reviews": _resident(server)}


def _resident(server: Server) -> dict[str, float]:
    pid = server.process.pid
    return {"rss": round(resident_mb(pid), 1), "pss": round(proportional_mb(pid), 1)}


def _installed(folder: Path) -> dict[str, object]:
    """Size in MB (10^6 bytes) of site-packages without pip, and of its largest packages, including .pyc files."""
    sizes = {each.name: _bytes(each) for each in distributions(path=[str(folder)])}
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    counted = {name: size for name, size in sizes.items() if name not in ("pip", "setuptools")}
    largest = sorted(counted.items(), key=lambda one: -one[1])[:LARGEST]
    return {
        "total": round((total - sum(sizes.values()) + sum(counted.values())) / 1e6, 1),
        "largest": {name: round(size / 1e6, 1) for name, size in largest},
    }


def _bytes(package: Distribution) -> int:
    paths = [Path(str(file.locate())) for file in package.files or []]
    return sum(path.stat().st_size for path in paths if path.exists())
