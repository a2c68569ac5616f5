"""What `likewise demo` makes, small: a fine-tuned model of 2 layers, the pipeline around it, and its bundle.

It is made once a run, by the fixture `store`, and shared by all workers: models may be added to the store, and nothing
in the folder is moved, renamed or written over.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import LIKEWISE

ROWS = 60  # that it scores
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
    """The demo's folder, a local MLflow store with both models in it. facts: what the demo printed; log: its progress.

    env: for processes that shall find the store.
    """

    folder: Path
    facts: Mapping[str, Any]
    log: str

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def env(self) -> dict[str, str]:
        return environment() | {"MLFLOW_TRACKING_URI": self.tracking_uri}

    @property
    def uri(self) -> str:
        """Of the pipeline."""
        return str(self.facts["pipeline_uri"])

    @property
    def model_uri(self) -> str:
        """Of the fine-tuned model."""
        return str(self.facts["finetuned_model_uri"])

    @property
    def bundle(self) -> Path:
        """Of the pipeline, with compiled engines that are measured."""
        return self.folder / "bundle"


def environment() -> dict[str, str]:
    """This process's, without any tracking server, offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"HF_HUB_OFFLINE": "1"}


def run(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A process that must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=dict(env or environment()), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def make_store(folder: Path) -> dict[str, Any]:
    """`likewise demo` in the new folder `folder`, which becomes a user's own: what it printed, and its progress."""
    folder.mkdir()
    homes = {f"LIKEWISE_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    command = [*LIKEWISE, "demo", "-o", "out", "--quick", "--rows", str(ROWS), "--json"]
    done = run(command, folder, environment() | homes)
    return {"facts": json.loads(done.stdout), "log": done.stderr}
