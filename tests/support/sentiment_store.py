"""The demo's models in an MLflow store, and their bundle: 2 layers, trained on half of the sentences.

Both are made once a run, by the fixtures `store` and `sentiment_bundle`, and shared by all workers: nobody changes,
moves or renames what is in them.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.demo.data import reviews, split

TRAIN_ROWS = "3840"
CALIBRATION_ROWS = 300
TEXTS = [
    "This is the best movie we saw.",
    "What a movie!",
    "What a movie!",
    "Das ist der beste Film, den wir je gesehen haben.",
    "",
    "a dull , tired and joyless mess from beginning to end .",
    "a warm , funny and moving film with wonderful performances .",
    "tokens " * 400,
    'quoted "text", a comma\nand a line break',
    "Ce film est magnifique, je l'ai adoré.",
]


@dataclass(frozen=True)
class Store:
    """A local MLflow store with both models in it. `env`: for processes that shall find it."""

    folder: Path
    trained: Mapping[str, Any]
    logged: Mapping[str, Any]
    registered: Mapping[str, Any]

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def env(self) -> dict[str, str]:
        return environment() | {"MLFLOW_TRACKING_URI": self.tracking_uri}

    @property
    def uri(self) -> str:
        return str(self.logged["uri"])

    @property
    def model_uri(self) -> str:
        return str(self.trained["uri"])


def environment() -> dict[str, str]:
    """This process's, without any tracking server, offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"HF_HUB_OFFLINE": "1"}


def run(arguments: list[str], folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A process that must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=dict(env or environment()), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


COMMANDS = """
import contextlib, io, json, sys
from likewise.demo.__main__ import app

def command(*words):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        app([*words, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())

trained = command("fine-tune", "--quick", "--rows", sys.argv[1])
logged = command("log-pipeline", "--finetuned-model-uri", trained["uri"])
registered = command("register", "--model-uri", logged["uri"])
json.dump({"trained": trained, "logged": logged, "registered": registered}, open(sys.argv[2], "w"))
"""


def make_store(folder: Path) -> dict[str, Any]:
    """Fine-tune, log and register in the new folder `folder`: what the three commands printed."""
    folder.mkdir()
    printed = folder / "printed.json"
    run([sys.executable, "-c", COMMANDS, TRAIN_ROWS, str(printed)], folder)
    return dict(json.loads(printed.read_text()))


def make_bundle(store: Store, folder: Path) -> None:
    """`likewise bundle`, calibrated on texts such as it will get: `bundle` in the new folder `folder`."""
    folder.mkdir()
    texts = folder / "texts.csv"
    with texts.open("w", encoding="utf-8", newline="") as stream:
        rows = split(reviews()).train[:CALIBRATION_ROWS]
        csv.writer(stream).writerows([["text"], *([review.text] for review in rows)])
    command = [sys.executable, "-m", "likewise.cli", "bundle", store.uri, "-o", "bundle", "--calibration", str(texts)]
    run(command, folder, store.env | {"LIKEWISE_CACHE_HOME": str(folder / "cache")})
