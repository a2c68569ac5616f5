"""Bodies of 1, 2, 4 and 8 MB of the worst shapes: time and memory must grow with their size, not with its square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.engines import sleeping
from bench.options import Options
from bench.servers import Server
from bench.shapes import SHAPES, send
from bench.verdict import Check, Verdict

MB = 1_000_000
SIZES = (1, 2, 4, 8)
DEADLINE_S = 300.0
CELLS = 20 * MB  # so that almost no shape is rejected for its size alone
LEAST_S, LEAST_MB = 0.1, 10.0  # less is not distinguished from noise


def scaling(options: Options) -> Verdict:  # noqa: ARG001
    """Seconds, and megabytes above the idle server, of each shape and size."""
    found = {name: _measured(name) for name in SHAPES}
    return Verdict(
        "scaling",
        {name: {**asdict(one), "time": one.time, "memory": one.memory} for name, one in found.items()},
        [
            Check("time per doubling", max(one.time for one in found.values()), "at most", 2.3),
            Check("memory per doubling", max(one.memory for one in found.values()), "at most", 2.3),
        ],
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """Status, seconds and megabytes for each size, and the mean factors per doubling of the latter two."""

    statuses: Sequence[int]
    seconds: Sequence[float]
    megabytes: Sequence[float]

    @property
    def time(self) -> float:
        """How time grows per doubling."""
        return _factor(self.seconds, LEAST_S)

    @property
    def memory(self) -> float:
        """How memory grows per doubling."""
        return _factor(self.megabytes, LEAST_MB)


def _measured(name: str) -> Growth:
    statuses, seconds, megabytes = list[int](), list[float](), list[float]()
    for size in SIZES:
        with sleeping(0, deadline_s=DEADLINE_S, cells_limit=CELLS) as server:
            before = server.rss_mb()
            status, took = send(server.port, SHAPES[name](size * MB))
            statuses.append(status)
            seconds.append(round(took, 3))
            megabytes.append(round(_peak_mb(server) - before, 1))
    return Growth(statuses, seconds, megabytes)


def _factor(values: Sequence[float], least: float) -> float:
    """The mean factor per doubling from the smallest to the largest size."""
    first, last = max(values[0], least), max(values[-1], least)
    return float(round((last / first) ** (1 / (len(values) - 1)), 2))


def _peak_mb(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
