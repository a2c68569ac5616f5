"""`python -m bench [--only serving|scoring] [--rounds 3] [--seconds 20]`: figures into bench/results, as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

from bench import scoring, serving
from bench.model import subject
from likewise.doctor import examine

parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
parser.add_argument("--only", choices=("serving", "scoring"))
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=int, default=20)
parser.add_argument("--rows", type=int, default=1500)
parser.add_argument("--connections", type=int, default=32)
told = parser.parse_args()

measured = subject()
figures: dict[str, object] = {
    "date": date.today().isoformat(),
    "machine": {f.name: f.found for f in examine() if f.name in ("CPU", "Memory", "torch", "mlflow", "pyspark")},
    "python": platform.python_version(),
    "asked": vars(told),
    "load_before": os.getloadavg()[0],
}
if told.only != "scoring":
    figures["serving"] = serving.measure(
        measured, seconds=told.seconds, connections=told.connections, rounds=told.rounds
    )
if told.only != "serving":
    figures["scoring"] = scoring.measure(measured, rows=told.rows, rounds=told.rounds)
path = Path(__file__).parent / "results" / f"{told.only or 'all'}.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(figures, indent=2) + "\n")
print(json.dumps(figures, indent=2))
