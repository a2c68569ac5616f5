"""Benchmarks and endurance tests: `python -m bench [--only NAME]` writes JSON files to bench/results."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    agreement,
    comparison,
    engine_rates,
    flavours,
    footprint,
    image_times,
    opening,
    overhead,
    peers_report,
    ray_jobs,
    ray_rates,
    record,
    scoring,
    serving,
    soak,
    spark_rates,
)
from bench.contenders import PEERS
from bench.model import FOLDER
from bench.options import Options, parse

BENCHMARKS: dict[str, Callable[[Options], dict[str, object]]] = {
    "serving": serving.serving,
    "scoring": scoring.scoring,
    "spark": spark_rates.spark,
    "spark-flavours": spark_rates.spark_flavours,
    "spark-memory": scoring.spark_memory,
    "flavours": flavours.flavours,
    "trivial": serving.trivial,
    "telemetry": serving.telemetry,
    "cached": serving.cached,
    "lone": overhead.lone,
    "served": overhead.served,
    "peers": comparison.peers,
    "ray": ray_rates.ray,
    "ray-jobs": ray_jobs.ray_jobs,
    "engines": engine_rates.engines,
    "agreement": agreement.agreement,
    "footprint": footprint.footprint,
    "image": image_times.image,
    "opening": opening.opening,
}
REPORTS: dict[str, Callable[[Path], object]] = {"peers": peers_report.write}


def main() -> int:
    """Run the requested benchmarks; returns 1 if a scenario of `soak` missed a threshold."""
    os.environ.setdefault(
        "MLFLOW_TRACKING_URI", f"sqlite:///{FOLDER / 'mlflow.db'}"
    )  # inherited by all child processes
    options = parse(__doc__ or "", [*BENCHMARKS, "soak"], soak.SCENARIOS, PEERS, flavours.FLAVOURS)
    if options.only == "soak":
        return _soak(options)
    for name in [options.only] if options.only else BENCHMARKS:
        print(f"{name} …", flush=True)
        before = record.surroundings()
        path = record.save(name, before, BENCHMARKS[name](options))
        if name in REPORTS:
            REPORTS[name](path)
    return 0


def _soak(options: Options) -> int:
    """Run the scenarios; each result is written to its own file as soon as it is known."""
    before = record.surroundings()
    missed = []
    for verdict in soak.soak(options):
        record.save(f"soak-{verdict.name}", before, verdict.as_dict())
        missed += [verdict.name] if not verdict.met else []
        before = record.surroundings()
    if missed:
        print(f"thresholds missed: {', '.join(missed)}", flush=True)
    return 1 if missed else 0


sys.exit(main())
