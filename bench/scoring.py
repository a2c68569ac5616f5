"""Large batch jobs: rows per second compared with the bare engine, and memory over time."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.bare import bare
from bench.child import Child
from bench.model import FOLDER, subject, texts, texts_csv
from bench.options import Options
from bench.processes import WORKER, largest, resident_mb
from likewise.core.cores import usable_threads
from likewise.demo.data import reviews

ROWS = 25_000
BARE_ROWS = 1024
EVERY_S = 5.0
POINTS = 20  # points of the memory curve
MEMORY_ROWS = 100_000
WORDS = 40  # words of a piece of a review, so that many rows take a tenth of the time


def scoring(options: Options) -> dict[str, object]:
    """`likewise score` over a CSV of reviews, and the bare engine before and after it, both including tokenization."""
    model, source = subject(), texts_csv(options.rows or ROWS)
    with bare(model.bundle) as engine:
        engine.call(do="rate", texts=texts(64))
        before = _rate(engine)
        report, curve = _scored(model.bundle, source, resident_mb)
        after = _rate(engine)
    rows_per_s = report["rows_ok"] / report["seconds"]
    return {
        "rows": report["rows_in"],
        "rows_per_s": round(rows_per_s, 2),
        "bare_rows_per_s": [before, after],
        "share_of_bare": round(rows_per_s / ((before + after) / 2), 3),
        "whole_command_seconds": curve[-1][0],
        "report": report,
        "memory_mb": _thinned(curve),
    }


def spark_memory(options: Options) -> dict[str, object]:
    """Memory of the largest Python worker during a job on Spark; rows are pieces of reviews."""
    rows = options.rows or MEMORY_ROWS
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        source = Path(folder, "pieces.csv")
        with source.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["text"], *([piece] for piece in _pieces(rows))])
        runner = ("--runner", "spark", "--master", f"local[{usable_threads()}]")
        report, curve = _scored(subject().bundle, source, lambda pid: largest(pid, WORKER), *runner)
    return {"rows": report["rows_in"], "report": report, "worker_mb": _thinned(curve), "peak_mb": curve[-1][1]}


def _rate(engine: Child) -> float:
    return float(engine.call(do="rate", texts=texts(BARE_ROWS))["with_tokenization_rows_per_s"])


def _scored(
    bundle: Path, source: Path, memory: Callable[[int], float], *options: str
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """The job's report, and its memory over time as pairs (seconds, MB)."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        argv = [
            sys.executable,
            "-m",
            "likewise.cli",
            "score",
            str(bundle),
            str(source),
            "-o",
            f"{folder}/out",
            "--json",
        ]
        environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
        started_at = time.perf_counter()
        with subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, text=True, env=environment) as process:
            curve = list(_memory_samples(process, memory, started_at))
            output = process.stdout.read() if process.stdout else ""  # one line, which cannot fill the pipe
    curve.append((round(time.perf_counter() - started_at, 1), curve[-1][1]))
    return dict(json.loads(output)), curve


def _memory_samples(
    process: subprocess.Popen[str], memory: Callable[[int], float], started_at: float
) -> Iterator[tuple[float, float]]:
    while process.poll() is None:
        yield round(time.perf_counter() - started_at, 1), round(memory(process.pid), 1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(EVERY_S)


def _thinned(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, len(curve) // POINTS)
    return [*curve[::step], curve[-1]]


def _pieces(count: int) -> Iterator[str]:
    """Distinct pieces of the reviews, each of `WORDS` words or the rest of its review."""
    seen: set[str] = set()
    for review in reviews("imdb"):
        words = review.text.split()
        for start in range(0, len(words), WORDS):
            piece = " ".join(words[start : start + WORDS])
            if piece not in seen:
                seen.add(piece)
                yield piece
            if len(seen) == count:
                return
