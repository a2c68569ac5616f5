"""Rows per second on Spark: Likewise's UDF and runner, MLflow's `spark_udf`, and the engine alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import wrk
from bench.bare import bare
from bench.child import Child
from bench.contenders import QUIET, REQUIREMENTS
from bench.environments import python_of, versions
from bench.flavours import classifier, reviews
from bench.model import FOLDER, Subject, cached, subject, texts, texts_csv
from bench.options import Options
from bench.peer_models import export_models
from bench.processes import WORKER, Peak, largest_of
from bench.servers import CHECKOUT
from likewise.core.cores import usable_threads

ROWS = 2400
FLAVOUR_ROWS = 800
BARE_ROWS = 1024
LONGER = 4  # factor for the runner's rows, since its figure includes its start
OURS = "likewise.spark.udf"
RUNNER = "likewise score --runner spark"
BARE = "the bare engine"
PEERS = {"mlflow.pyfunc.spark_udf, row by row": "rows", "mlflow.pyfunc.spark_udf, batched": "batched"}


def spark(options: Options) -> dict[str, object]:
    """Medians by tool, alternating, with one task per core; number of labels equal to Likewise's.

    The clock starts after the session, its workers and their models are ready.
    """
    model, rows = subject(), options.rows or ROWS
    wanted = (REQUIREMENTS / "requirements-spark.txt").read_text(encoding="utf-8")
    python = python_of("spark", wanted, ["-r", str(REQUIREMENTS / "requirements-spark.txt")])
    pyfuncs, source = export_models(model, python), texts_csv(rows)
    taken: dict[str, list[dict[str, Any]]] = {}
    with bare(model.bundle) as engine:
        engine.call(do="rate", texts=texts(64))
        for _ in range(options.rounds or 3):
            _note(taken, BARE, _rate(engine))
            _note(taken, OURS, _job(sys.executable, "likewise", model.bundle, source))
            _note(taken, RUNNER, _runner(model, texts_csv(LONGER * rows)))
            for title, name in PEERS.items():
                _note(taken, title, _job(str(python), "mlflow", pyfuncs.pyfunc(name), source))
            _note(taken, BARE, _rate(engine))
    expected = taken[OURS][0]["labels"]
    for rounds in taken.values():
        for one in rounds:
            labels = one.pop("labels", None)
            one |= {"labels_equal": sum(map(str.__eq__, labels, expected))} if labels else {}
    names = [line.partition("==")[0] for line in wanted.split()]
    return {
        "rows": rows,
        "cores": usable_threads(),
        "medians": wrk.medians(taken),
        "rounds": taken,
        "environment": versions(python, *names),
    }


def spark_flavours(options: Options) -> dict[str, object]:
    """The UDFs on the demo's fine-tuned classifier, a model of MLflow's transformers flavor, in one environment."""
    uri, rows = classifier(), options.rows or FLAVOUR_ROWS
    bundle, source = cached("transformers.json", "transformers-bundle", classifier).bundle, _reviews_csv(rows)
    taken: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds or 3):
        _note(taken, OURS, _job(sys.executable, "likewise", str(bundle), source))
        _note(taken, "mlflow.pyfunc.spark_udf", _job(sys.executable, "mlflow", uri, source))
    expected = [rounds[0]["labels"] for rounds in taken.values()]
    for one in (one for rounds in taken.values() for one in rounds):
        one.pop("labels")
    return {
        "rows": rows,
        "cores": usable_threads(),
        "labels_equal": sum(map(str.__eq__, *expected)),
        "medians": wrk.medians(taken),
        "rounds": taken,
    }


def _reviews_csv(rows: int) -> Path:
    """Reviews that the model need not truncate."""
    path = FOLDER / f"short-reviews-{rows}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in reviews()[:rows])])
    return path


def _note(taken: dict[str, list[dict[str, Any]]], title: str, figures: dict[str, Any]) -> None:
    print(f"  {title}: { ({key: value for key, value in figures.items() if key != 'labels'}) }", flush=True)
    taken.setdefault(title, []).append(figures)


def _rate(engine: Child) -> dict[str, Any]:
    """Rows per second including concurrent tokenization, as in a job."""
    return {"rows_per_s": engine.call(do="rate", texts=texts(BARE_ROWS))["with_tokenization_rows_per_s"]}


def _job(python: str, tool: str, model: Path | str, source: Path) -> dict[str, Any]:
    argv = [python, "-m", "bench.peers.spark_job", tool, str(model), str(source), str(usable_threads())]
    output, worker = _run(argv)
    return {**json.loads(output.splitlines()[-1]), "worker_mb": worker.mb}


def _runner(model: Subject, source: Path) -> dict[str, Any]:
    """Rows per second by the job's report, including the start of workers and engines, and of the whole command."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        argv = [sys.executable, "-m", "likewise.cli", "score", str(model.bundle), str(source), "-o", f"{folder}/out"]
        started_at = time.perf_counter()
        output, worker = _run([*argv, "--runner", "spark", "--master", f"local[{usable_threads()}]", "--json"])
        seconds, report = time.perf_counter() - started_at, json.loads(output)
    rows = report["rows_ok"]
    figures = {"rows_per_s": rows / report["seconds"], "whole_command_rows_per_s": rows / seconds}
    return {**{name: round(value, 2) for name, value in figures.items()}, "worker_mb": worker.mb}


def _run(argv: Sequence[str]) -> tuple[str, Peak]:
    """Run a command; returns its output and the largest peak memory of any of its Python workers."""
    environment = {**os.environ, **_pairs(QUIET), "PYTHONPATH": str(CHECKOUT)}
    environment |= {"PYSPARK_PYTHON": argv[0], "PYSPARK_DRIVER_PYTHON": argv[0]}
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, cwd=FOLDER) as process,
        largest_of(process.pid, WORKER) as worker,
    ):
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} exited with code {process.returncode}")
    return output, worker


def _pairs(settings: Sequence[str]) -> Mapping[str, str]:
    return dict(each.split("=", 1) for each in settings)
