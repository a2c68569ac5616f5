"""Command-line options of the benchmarks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options; None selects the benchmark's default.

    seconds: length of one measurement; rows_per_s: speed of the sleeping engine; peer: names, None for all; reviews:
    how many are scored; isa: value of ONEDNN_MAX_CPU_ISA; model: names, None for all; before: another
    checkout.
    """

    only: str | None = None
    scenario: str | None = None
    rounds: int | None = None
    seconds: float | None = None
    requests: int | None = None
    rows: int | None = None
    connections: int = 32
    rows_per_s: float = 500.0
    peer: list[str] | None = None
    reviews: int | None = None
    isa: str | None = None
    model: list[str] | None = None
    before: Path | None = None


def parse(
    about: str,
    benchmarks: Iterable[str],
    scenarios: Iterable[str],
    peers: Iterable[str],
    models: Iterable[str],
) -> Options:
    """Parse the command line."""
    parser = ArgumentParser(prog="python -m bench", description=about)
    parser.add_argument("--only", choices=list(benchmarks), help="run only this benchmark; default: all except soak")
    parser.add_argument("--scenario", choices=list(scenarios), help="soak: run only this scenario")
    parser.add_argument("--rounds", type=int, help="rounds of the compared tools; repetitions of drain and workers")
    parser.add_argument("--seconds", type=float, help="length of each measurement")
    parser.add_argument("--requests", type=int, help="swap and poison: number of requests")
    parser.add_argument("--rows", type=int, help="scoring, spark and spark-memory: rows of the file")
    parser.add_argument(
        "--connections", type=int, default=Options.connections, help="connections to each compared server"
    )
    parser.add_argument("--rows-per-s", type=float, default=Options.rows_per_s, help="soak: the engine's speed")
    parser.add_argument(
        "--peer", action="append", choices=list(peers), help="peers: compare with this peer; repeatable"
    )
    parser.add_argument(
        "--model", action="append", choices=list(models), help="flavours: measure this model; repeatable"
    )
    parser.add_argument("--reviews", type=int, help="engines, agreement, footprint: number of reviews")
    parser.add_argument(
        "--isa", metavar="NAME", help="engines: set ONEDNN_MAX_CPU_ISA, for example to AVX2 or AVX512_CORE"
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="telemetry: compare with the server of another checkout"
    )
    arguments: Namespace = parser.parse_args()
    if arguments.scenario and arguments.only != "soak":
        parser.error("--scenario needs --only soak")
    return Options(**vars(arguments))
