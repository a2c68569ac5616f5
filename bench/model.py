"""The models and texts that are measured: the demo's pipeline with IMDB's reviews, and a trivial model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from likewise.core.digests import sha256_json
from likewise.demo.data import reviews, split

SOURCES = Path(__file__).parents[1] / "src" / "likewise"
BUILDERS = ("builder", "bundles", "engine", "pipeline")  # packages that determine the content of a bundle
FOLDER = Path(__file__).parents[1] / ".bench"
CALIBRATION = 300  # reviews from the demo's training data


@dataclass(frozen=True)
class Subject:
    """A model as an MLflow URI and as a bundle."""

    uri: str
    bundle: Path


def subject() -> Subject:
    """The demo's pipeline: trained, logged and bundled at the first call; bundled again if the code has changed."""
    FOLDER.mkdir(exist_ok=True)
    some = [
        review.text for review in split(reviews()).train[:CALIBRATION]
    ]  # not from IMDB, which is used for measuring
    return cached("subject.json", "bundle", _logged_pipeline, "--calibration", str(_csv("calibration.csv", some)))


def upper(seconds: float = 0.0, fault: str = "") -> Subject:
    """A row-wise pyfunc that returns its text in upper case after sleeping `seconds` per call; cached as well.

    fault: one of the faults of `upper_model`, which occur only on Ray.
    """
    name = f"upper-{seconds:g}{fault and '-'}{fault.replace(' ', '-')}"
    return cached(f"{name}.json", f"{name}-bundle", lambda: _logged_upper(seconds, fault), "--trust")


def hostile() -> Subject:
    """A row-wise pyfunc whose rows hang, crash and raise, according to their first word; cached as well."""
    return cached("hostile.json", "hostile-bundle", lambda: _logged("hostile_model.py", {}), "--trust")


def texts(count: int) -> list[str]:
    """`count` distinct IMDB reviews."""
    return list(dict.fromkeys(r.text for r in reviews("imdb")[:: max(1, 25_000 // (count + 200))]))[:count]


def texts_csv(count: int) -> Path:
    """The same reviews as a CSV with the column `text`."""
    return _csv(f"reviews-{count}.csv", texts(count))


def body(*rows: str) -> bytes:
    """A request body for these texts in MLflow's current format."""
    return json.dumps({"dataframe_split": {"columns": ["text"], "data": [[row] for row in rows]}}).encode()


def bodies(rows: Sequence[str]) -> Path:
    """A file for `wrk` with one request per line and one text per request."""
    path = FOLDER / f"bodies-{len(rows)}.txt"
    path.write_bytes(b"".join(body(row) + b"\n" for row in rows))
    return path


def run_json(module: str, *argv: str) -> dict[str, str]:
    """Run `python -m module …`; returns the JSON document that it prints."""
    command, environment = [sys.executable, "-m", module, *argv], {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=FOLDER, env=environment)
    return dict(json.loads(completed.stdout))


def cached(note: str, bundle: str, log: Callable[[], str], *options: str) -> Subject:
    """The model that `log` logs and its bundle, made at the first call; bundled again if the code has changed.

    note: file that keeps the URI; bundle: name of the bundle's folder; options: of `likewise bundle`.
    """
    FOLDER.mkdir(exist_ok=True)
    logged = FOLDER / note
    if not logged.exists():
        logged.write_text(json.dumps({"uri": log()}))
    uri = json.loads(logged.read_text())["uri"]
    folder = FOLDER / f"{bundle}-{_builders_digest()}"
    if not folder.exists():
        run_json("likewise.cli", "bundle", uri, "-o", str(folder), *options, "--json")
        for other in set(FOLDER.glob(f"{bundle}-????????")) - {folder}:
            shutil.rmtree(other)
    return Subject(uri, folder)


def _builders_digest() -> str:
    """A short digest of the code that builds bundles, since a bundle built by older code may lack engines."""
    paths = sorted(path for package in BUILDERS for path in (SOURCES / package).rglob("*.py"))
    texts = {str(path.relative_to(SOURCES)): path.read_text(encoding="utf-8") for path in paths}
    return sha256_json(texts).partition(":")[2][:8]


def _csv(name: str, rows: Sequence[str]) -> Path:
    path = FOLDER / name
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([row] for row in rows)])
    return path


def _logged_pipeline() -> str:
    tuned = run_json("likewise.demo", "fine-tune", "--json")
    return run_json("likewise.demo", "log-pipeline", "--finetuned-model-uri", tuned["uri"], "--json")["uri"]


def _logged_upper(seconds: float, fault: str) -> str:
    return _logged("upper_model.py", {"seconds": seconds, "fault": fault})


def _logged(code: str, config: dict[str, object]) -> str:
    import mlflow
    import pandas as pd

    frame = pd.DataFrame({"text": ["a text"]})
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name=code.partition("_")[0],
            python_model=str(Path(__file__).with_name(code)),
            model_config=config,
            signature=mlflow.models.infer_signature(frame, frame),
            input_example=frame,
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"pandas=={pd.__version__}"],
            metadata={"likewise": {"row_wise": True}},
        )
    return str(logged.model_uri)
