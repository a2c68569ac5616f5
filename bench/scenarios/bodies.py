"""The worst bodies within the limits: they stall nobody else, are answered in time, and take bounded memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.engines import sleeping
from bench.options import Options
from bench.pinger import pinging
from bench.processes import family, resident_mb
from bench.servers import Server
from bench.shapes import SHAPES, Body, ordinary, send
from bench.verdict import Check, Verdict, quantile

MB = 1_000_000
SIZES_MB = (1, 3, 6, 12, 25)
DEADLINE_S = 10.0
SECONDS = 60.0
CONNECTIONS = 64
EVERY_S = 0.02
ORDINARY_MB = (1, 4)


def bodies(options: Options) -> Verdict:
    """The longest stall of /ping and the slowest response of each shape, then memory under many of them."""
    with sleeping(0, deadline_s=DEADLINE_S) as server:
        alone = {name: [_with_ping(server, shape(size * MB)) for size in SIZES_MB] for name, shape in SHAPES.items()}
    seconds = options.seconds or SECONDS
    usual = _under_load([ordinary(size * MB) for size in ORDINARY_MB], seconds)
    worst = _under_load([SHAPES[name](_largest(runs) * MB) for name, runs in alone.items()], seconds)
    stalls = {name: max(stall for _, _, stall in runs) for name, runs in alone.items()}
    slowest = max(took for runs in alone.values() for _, took, _ in runs)
    return Verdict(
        "bodies",
        {
            "by shape and size: status, seconds, stall": alone,
            "ordinary load": asdict(usual),
            "worst bodies": asdict(worst),
        },
        [
            Check("longest stall of /ping, ms", max(stalls.values()) * 1e3, "at most", 250.0),
            Check("slowest response, s", slowest, "at most", DEADLINE_S + 1),
            Check("memory / peak of the ordinary load", worst.mb / usual.mb, "at most", 2.0),
            Check("responses without a status", worst.statuses.get("0", 0), "at most", 0),
        ],
    )


def _largest(runs: Sequence[tuple[int, float, float]]) -> int:
    """The largest size in MB that was not rejected for its size, or the smallest of all."""
    return max(
        (size for size, (status, _, _) in zip(SIZES_MB, runs, strict=True) if status != 413), default=SIZES_MB[0]
    )


def _with_ping(server: Server, body: Body) -> tuple[int, float, float]:
    """The status and seconds of a body's response, and the longest response of /ping meanwhile."""
    with pinging(server.port) as waits:
        status, took = send(server.port, body)
    return status, round(took, 3), round(max(waits, default=0.0), 3)


@dataclass(frozen=True, slots=True)
class Load:
    """What many clients found: peak memory of the server, responses by status (0: none), slowest response, /ping."""

    mb: float
    statuses: Mapping[str, int]
    slowest_s: float
    ping_p99_s: float
    ping_max_s: float


def _under_load(choice: Sequence[Body], seconds: float) -> Load:
    """Peak memory of the server's processes while CONNECTIONS clients send the bodies in turn."""
    turns, outcomes = itertools.cycle(choice), list[tuple[int, float]]()
    peak = 0.0
    with sleeping(0, deadline_s=DEADLINE_S) as server:
        until = time.monotonic() + seconds

        def client() -> None:
            while time.monotonic() < until:
                outcomes.append(send(server.port, next(turns)))

        with pinging(server.port) as waits:
            clients = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
            for one in clients:
                one.start()
            while any(one.is_alive() for one in clients):
                peak = max(peak, sum(map(_resident, family(server.process.pid))))
                time.sleep(EVERY_S * 5)
    return Load(
        mb=round(peak, 1),
        statuses={str(status): count for status, count in sorted(Counter(status for status, _ in outcomes).items())},
        slowest_s=round(max(took for _, took in outcomes), 2),
        ping_p99_s=round(quantile(waits, 0.99), 3),
        ping_max_s=round(max(waits), 3),
    )


def _resident(pid: int) -> float:
    try:
        return resident_mb(pid)
    except (OSError, IndexError):
        return 0.0
