"""Rows a second over a file: `likewise score` beside plain `spark_udf`; whole commands, start included."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time

from bench.model import FOLDER, Subject, ask, texts_csv


def measure(subject: Subject, *, rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and rows/s by tool; alternating, medians of the rounds."""
    source = texts_csv(rows)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        start = time.perf_counter()
        argv = [sys.executable, "-m", "likewise.demo.batch_inference", subject.uri, str(source), str(FOLDER / "spark")]
        subprocess.run(argv, check=True, capture_output=True, cwd=FOLDER)
        taken.setdefault("mlflow.pyfunc.spark_udf, local[*]", []).append(time.perf_counter() - start)
        shutil.rmtree(FOLDER / "spark")
        start = time.perf_counter()
        ask(
            "likewise.cli",
            "score",
            str(subject.bundle),
            str(source),
            "-o",
            str(FOLDER / "ours.csv"),
            "--restart",
            "--json",
        )
        taken.setdefault("likewise score", []).append(time.perf_counter() - start)
        print(f"  { ({name: round(seconds[-1], 1) for name, seconds in taken.items()}) } s", flush=True)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return {name: {"seconds": round(s, 1), "rows_per_s": round(rows / s, 1)} for name, s in medians.items()}
