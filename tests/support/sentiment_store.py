"""The output of the first steps of a small `likewise demo`: a model of 2 layers, a pipeline that uses it, its bundle.

The fixture `store` creates it once per test run, and all workers share it: tests may add models to the store, but must
not move, rename or overwrite files in the folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = 60  # number of rows that the demo scores
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

CREATE = """
import json, sys
from pathlib import Path
from likewise.cli.demo import missing
from likewise.cli.demo_steps import Demo
from likewise.doctor import examine
skipped = missing(examine(), full=False) | {"Spark": "tests/process/test_sentiment_pipeline.py compares it"}
demo = Demo(Path("out"), quick=True, rows=int(sys.argv[1]), missing=skipped)
demo.prepare()
demo.create()
print(json.dumps(demo.facts))
"""


@dataclass(frozen=True)
class Store:
    """The demo's folder with a local MLflow store of both models. facts: the demo's JSON output; log: its stderr.

    env: the environment for processes that use the store.
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
        """The URI of the pipeline."""
        return str(self.facts["pipeline_uri"])

    @property
    def model_uri(self) -> str:
        """The URI of the fine-tuned model."""
        return str(self.facts["finetuned_model_uri"])

    @property
    def bundle(self) -> Path:
        """The bundle of the pipeline, with compiled and measured engines."""
        return self.folder / "bundle"


def environment() -> dict[str, str]:
    """This process's environment without the variables of MLflow, and offline for Hugging Face."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return variables | {"HF_HUB_OFFLINE": "1"}


def run(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a process that must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=dict(env or environment()), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def make_store(folder: Path) -> dict[str, Any]:
    """Run the first steps of `likewise demo` in the new folder `folder`, as a new user; their facts and stderr."""
    folder.mkdir()
    homes = {f"LIKEWISE_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    done = run([sys.executable, "-c", CREATE, str(ROWS)], folder, environment() | homes)
    return {"facts": json.loads(done.stdout), "log": done.stderr}
