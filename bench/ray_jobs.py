"""Batch jobs on Ray: `likewise score --runner ray`, the same model in plain Ray Data, and the engine alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import wrk
from bench.bare import bare
from bench.flavours import classifier, reviews
from bench.model import FOLDER, cached
from bench.options import Options
from bench.servers import CHECKOUT
from likewise.core.cores import usable_threads

ROWS = 4000
BARE_ROWS = 512
OURS, PEER, BARE = "likewise score --runner ray", "ray.data.map_batches", "the bare engine"


def ray_jobs(options: Options) -> dict[str, object]:
    """Medians on a cluster of one node with one worker per core, alternating.

    Both figures include the start of workers and models, but not that of Ray.
    """
    uri, rows = classifier(), options.rows or ROWS
    bundle = cached("transformers.json", "transformers-bundle", classifier).bundle
    texts = reviews()[:rows]
    taken: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, bare(bundle) as engine:
        source = Path(folder, "reviews.csv")
        with source.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["text"], *([text] for text in texts)])
        for number in range(options.rounds or 3):
            rate = engine.call(do="rate", texts=texts[:BARE_ROWS])["with_tokenization_rows_per_s"]
            taken.setdefault(BARE, []).append({"rows_per_s": rate})
            taken.setdefault(OURS, []).append(_ours(bundle, source, Path(folder, f"ours-{number}")))
            print({OURS: taken[OURS][-1]["rows_per_s"]}, flush=True)
            taken.setdefault(PEER, []).append(_peer(uri, source, Path(folder, f"peer-{number}")))
            print({name: each[-1]["rows_per_s"] for name, each in taken.items()}, flush=True)
    expected = taken[PEER][0]["labels"]
    for rounds in taken.values():
        for one in rounds:
            if labels := one.pop("labels", None):
                one["labels_equal"] = sum(expected[text] == label for text, label in labels.items())
    return {"rows": rows, "cores": usable_threads(), "medians": wrk.medians(taken), "rounds": taken}


def _ours(bundle: Path, source: Path, output: Path) -> dict[str, Any]:
    started_at = time.perf_counter()
    words = ["score", str(bundle), str(source), "-o", str(output), "--format", "parquet", "--runner", "ray", "--json"]
    report = json.loads(_run([sys.executable, "-m", "likewise.cli", *words]))
    table = pq.read_table(output)
    labels = dict(
        zip(table["text"].to_pylist(), (each["label"] for each in table["predictions"].to_pylist()), strict=True)
    )
    figures = {"rows_per_s": report["rows_ok"] / report["seconds"]}
    figures["whole_command_rows_per_s"] = report["rows_ok"] / (time.perf_counter() - started_at)
    return {**{name: round(value, 2) for name, value in figures.items()}, "labels": labels}


def _peer(uri: str, source: Path, output: Path) -> dict[str, Any]:
    words = [uri, str(source), str(output), str(usable_threads())]
    done = json.loads(_run([sys.executable, "-m", "bench.peers.ray_data_job", *words]).splitlines()[-1])
    return {"rows_per_s": round(done["rows"] / done["seconds"], 2), "labels": done["labels"]}


def _run(argv: Sequence[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout
