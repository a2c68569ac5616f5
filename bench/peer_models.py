"""The demo's trained classifier in the formats of the peers: a Hugging Face folder, two pyfuncs, a repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import likewise
from bench.model import FOLDER, Subject
from likewise.engine.text.checkpoint import find_checkpoint
from likewise.pipeline.pipeline import classifiers

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Models:
    """The folder that contains the models."""

    folder: Path

    @property
    def classifier(self) -> Path:
        """A folder with weights, configuration and tokenizer."""
        return self.folder / "classifier"

    def pyfunc(self, name: str) -> Path:
        """The pyfunc `rows` or `batched`, which contains the classifier."""
        return self.folder / "pyfunc" / name

    def mlserver(self) -> Path:
        """A repository with the batched pyfunc as `reviews`, which runs in the server's own process.

        MLServer's process pool does not start with current uvloop. Written each time, since it has an absolute path.
        """
        folder = self.folder / "mlserver"
        folder.mkdir(exist_ok=True)
        model = {
            "name": "reviews",
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "max_batch_size": 16,
            "max_batch_time": 0.02,
            "parameters": {"uri": str(self.pyfunc("batched"))},
        }
        (folder / "model-settings.json").write_text(json.dumps(model))
        (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0}))
        return folder


def export_models(subject: Subject, python: Path) -> Models:
    """The bundle's models, exported at the first call; python: interpreter with MLflow and the steps' dependencies."""
    bundle = likewise.open_bundle(subject.bundle)
    models = Models(FOLDER / "peers" / bundle.digest.partition(":")[2][:12])
    if not models.folder.exists():
        (uri,) = classifiers(bundle.manifest.pipeline)
        staging = models.folder.with_suffix(".new")
        shutil.rmtree(staging, ignore_errors=True)
        _gather(bundle.resolve(uri), staging / "classifier")
        argv = [str(python), "-m", "bench.peers.mlflow_save", str(staging / "classifier"), str(staging / "pyfunc")]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1"}
        subprocess.run(argv, check=True, env=environment, cwd=FOLDER, stdout=subprocess.DEVNULL)
        staging.rename(models.folder)
    return models


def _gather(reference: Path, folder: Path) -> None:
    """Copy weights and tokenizer, which MLflow stores separately, into one Hugging Face folder."""
    checkpoint = find_checkpoint(reference)
    for part in (checkpoint.weights, checkpoint.tokenizer.parent):
        shutil.copytree(part, folder, dirs_exist_ok=True)
