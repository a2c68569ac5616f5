"""What is measured: the demo's pipeline, trained once into `.bench`, and the IMDB reviews that it answers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from likewise.demo.data import reviews

FOLDER = Path(".bench").resolve()
os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{FOLDER / 'mlflow.db'}")


@dataclass(frozen=True)
class Subject:
    """The model as MLflow knows it, and as a bundle."""

    uri: str
    bundle: Path


def subject() -> Subject:
    """Trained, logged, registered and bundled at the first call; found again later."""
    FOLDER.mkdir(exist_ok=True)
    made = FOLDER / "subject.json"
    if not made.exists():
        tuned = ask("likewise.demo", "fine-tune", "--json")
        logged = ask("likewise.demo", "log-pipeline", "--finetuned-model-uri", tuned["uri"], "--json")
        ask("likewise.cli", "bundle", logged["uri"], "-o", str(FOLDER / "bundle"), "--json")
        made.write_text(json.dumps(logged))
    return Subject(json.loads(made.read_text())["uri"], FOLDER / "bundle")


def texts(count: int) -> list[str]:
    """`count` IMDB reviews, every one different."""
    return list(dict.fromkeys(r.text for r in reviews("imdb")[:: max(1, 25_000 // (count + 200))]))[:count]


def texts_csv(count: int) -> Path:
    """The same reviews as a CSV with the column `text`."""
    path = FOLDER / f"reviews-{count}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text"])
        writer.writerows([t] for t in texts(count))
    return path


def ask(module: str, *argv: str) -> dict[str, str]:
    """The JSON document that `python -m module …` prints."""
    done = subprocess.run([sys.executable, "-m", module, *argv], check=True, stdout=subprocess.PIPE, cwd=FOLDER)
    return dict(json.loads(done.stdout))
