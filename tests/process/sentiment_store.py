"""The chapter's three commands, run once a test session and small: 2 layers, trained on half of the sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN_ROWS = "3840"
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


def command(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `python -m likewise.demo … --json` printed, run in `folder`."""
    done = run([sys.executable, "-m", "likewise.demo", *arguments, "--json"], folder, env)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def run(arguments: list[str], folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A process that must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=dict(env or environment()), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def make_store(base: Path) -> Store:
    """Fine-tune, log, register, in a folder below `base`."""
    folder = base / "sentiment"
    folder.mkdir()
    trained = command(folder, "fine-tune", "--quick", "--rows", TRAIN_ROWS)
    logged = command(folder, "log-pipeline", "--finetuned-model-uri", trained["uri"])
    registered = command(folder, "register", "--model-uri", logged["uri"])
    return Store(folder, trained, logged, registered)
