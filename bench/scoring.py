"""Rows a second over a file: `likewise score` beside plain `spark_udf`; whole commands, start included."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time

from bench.model import FOLDER, ask, subject, texts_csv
from bench.options import Options


def scoring(options: Options) -> dict[str, object]:
    """Seconds and rows/s by tool; alternating, medians of the rounds."""
    model, rows = subject(), options.rows
    source = texts_csv(rows)
    taken: dict[str, list[float]] = {}
    for _ in range(options.rounds or 3):
        start = time.perf_counter()
        argv = [sys.executable, "-m", "likewise.demo.batch_inference", model.uri, str(source), str(FOLDER / "spark")]
        subprocess.run(argv, check=True, capture_output=True, cwd=FOLDER)
        taken.setdefault("mlflow.pyfunc.spark_udf, local[*]", []).append(time.perf_counter() - start)
        shutil.rmtree(FOLDER / "spark")
        start = time.perf_counter()
        ask(
            "likewise.cli",
            "score",
            str(model.bundle),
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
