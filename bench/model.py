"""What is measured: the demo's pipeline with IMDB's reviews, and a model that does next to nothing."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from likewise.core.digests import sha256_json
from likewise.demo.data import reviews, split

SOURCES = Path(__file__).parents[1] / "src" / "likewise"
BUILDERS = ("build", "bundles", "engine", "pipeline")  # rooms that decide what is in a bundle
FOLDER = Path(__file__).parents[1] / ".bench"
CALIBRATION = 300  # reviews that the demo was trained on


@dataclass(frozen=True)
class Subject:
    """The model as MLflow knows it, and as a bundle."""

    uri: str
    bundle: Path


def subject() -> Subject:
    """The demo's pipeline: trained, logged and bundled at the first call; bundled anew where our code has changed."""
    FOLDER.mkdir(exist_ok=True)
    some = [review.text for review in split(reviews()).train[:CALIBRATION]]  # never IMDB's, which it is measured on
    return _kept("subject.json", "bundle", _logged_pipeline, "--calibration", str(_csv("calibration.csv", some)))


def upper(seconds: float = 0.0, fault: str = "") -> Subject:
    """A row-wise pyfunc that answers its text in capitals, after sleeping `seconds` a call; kept as well.

    fault: one that `upper_model` knows, and has on Ray alone.
    """
    name = f"upper-{seconds:g}{fault and '-'}{fault.replace(' ', '-')}"
    return _kept(f"{name}.json", f"{name}-bundle", lambda: _logged_upper(seconds, fault), "--trust")


def texts(count: int) -> list[str]:
    """`count` IMDB reviews, every one different."""
    return list(dict.fromkeys(r.text for r in reviews("imdb")[:: max(1, 25_000 // (count + 200))]))[:count]


def texts_csv(count: int) -> Path:
    """The same reviews as a CSV with the column `text`."""
    return _csv(f"reviews-{count}.csv", texts(count))


def body(*rows: str) -> bytes:
    """A request for these texts, in the form that today's MLflow asks for."""
    return json.dumps({"dataframe_split": {"columns": ["text"], "data": [[row] for row in rows]}}).encode()


def bodies(rows: Sequence[str]) -> Path:
    """A file for `wrk`: one request a line, one text a request."""
    path = FOLDER / f"bodies-{len(rows)}.txt"
    path.write_bytes(b"".join(body(row) + b"\n" for row in rows))
    return path


def ask(module: str, *argv: str) -> dict[str, str]:
    """The JSON document that `python -m module …` prints."""
    done = subprocess.run([sys.executable, "-m", module, *argv], check=True, stdout=subprocess.PIPE, cwd=FOLDER)
    return dict(json.loads(done.stdout))


def _kept(note: str, bundle: str, log: Callable[[], str], *options: str) -> Subject:
    FOLDER.mkdir(exist_ok=True)
    made = FOLDER / note
    if not made.exists():
        made.write_text(json.dumps({"uri": log()}))
    uri = json.loads(made.read_text())["uri"]
    folder = FOLDER / f"{bundle}-{_builders()}"
    if not folder.exists():
        ask("likewise.cli", "bundle", uri, "-o", str(folder), *options, "--json")
        for other in set(FOLDER.glob(f"{bundle}-????????")) - {folder}:
            shutil.rmtree(other)
    return Subject(uri, folder)


def _builders() -> str:
    """Of the code that builds: a bundle of other code may lack today's engines."""
    paths = sorted(path for room in BUILDERS for path in (SOURCES / room).rglob("*.py"))
    texts = {str(path.relative_to(SOURCES)): path.read_text(encoding="utf-8") for path in paths}
    return sha256_json(texts).partition(":")[2][:8]


def _csv(name: str, rows: Sequence[str]) -> Path:
    path = FOLDER / name
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([row] for row in rows)])
    return path


def _logged_pipeline() -> str:
    tuned = ask("likewise.demo", "fine-tune", "--json")
    return ask("likewise.demo", "log-pipeline", "--finetuned-model-uri", tuned["uri"], "--json")["uri"]


def _logged_upper(seconds: float, fault: str) -> str:
    import mlflow
    import pandas as pd

    frame = pd.DataFrame({"text": ["a text"]})
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="upper",
            python_model=str(Path(__file__).with_name("upper_model.py")),
            model_config={"seconds": seconds, "fault": fault},
            signature=mlflow.models.infer_signature(frame, frame),
            input_example=frame,
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"pandas=={pd.__version__}"],
            metadata={"likewise": {"row_wise": True}},
        )
    return str(logged.model_uri)
