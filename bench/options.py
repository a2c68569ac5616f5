"""What can be asked of a benchmark on its command line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """None: the benchmark's own choice.

    seconds: of one measured stretch; rows_per_s: the sleeping engine's speed; peer: names, None for all; reviews: how
    many are answered; isa: the most that ONEDNN_MAX_CPU_ISA allows.
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


def parse(about: str, benchmarks: Iterable[str], scenarios: Iterable[str], peers: Iterable[str]) -> Options:
    """From the command line."""
    parser = ArgumentParser(prog="python -m bench", description=about)
    parser.add_argument("--only", choices=list(benchmarks), help="this one alone; without it, all but soak")
    parser.add_argument("--scenario", choices=list(scenarios), help="of soak: this one alone")
    parser.add_argument("--rounds", type=int, help="alternations of the tools compared; repeats of drain and workers")
    parser.add_argument("--seconds", type=float, help="length of each measured stretch")
    parser.add_argument("--requests", type=int, help="of swap and poison: how many")
    parser.add_argument("--rows", type=int, help="of scoring, spark and spark-memory: rows of the file")
    parser.add_argument("--connections", type=int, default=Options.connections, help="of the servers compared")
    parser.add_argument("--rows-per-s", type=float, default=Options.rows_per_s, help="of soak: the engine's speed")
    parser.add_argument("--peer", action="append", choices=list(peers), help="of peers: this one; may be repeated")
    parser.add_argument("--reviews", type=int, help="of engines, agreement, footprint: how many")
    parser.add_argument("--isa", metavar="NAME", help="of engines: set ONEDNN_MAX_CPU_ISA, such as AVX2 or AVX512_CORE")
    told: Namespace = parser.parse_args()
    if told.scenario and told.only != "soak":
        parser.error("--scenario goes with --only soak")
    return Options(**vars(told))
