"""The demo's trained classifier in the forms that the peers take: a Hugging Face folder, two pyfuncs, a repository."""

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
    """Where they lie."""

    folder: Path

    @property
    def classifier(self) -> Path:
        """Weights, configuration and tokenizer together."""
        return self.folder / "classifier"

    def pyfunc(self, name: str) -> Path:
        """`rows` or `batched`, with the classifier inside."""
        return self.folder / "pyfunc" / name

    def mlserver(self) -> Path:
        """A repository with the batched pyfunc as `reviews`, to be run in the server's own process.

        Its pool of processes does not start on today's uvloop. Written anew each time, as it names an absolute path.
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


def made(subject: Subject, python: Path) -> Models:
    """The models of this bundle, made at the first call; python: of an environment with MLflow and the steps' needs."""
    bundle = likewise.open_bundle(subject.bundle)
    models = Models(FOLDER / "peers" / bundle.digest.partition(":")[2][:12])
    if not models.folder.exists():
        (uri,) = classifiers(bundle.manifest.pipeline)
        beside = models.folder.with_suffix(".new")
        shutil.rmtree(beside, ignore_errors=True)
        _gather(bundle.resolve(uri), beside / "classifier")
        argv = [str(python), "-m", "bench.peers.mlflow_save", str(beside / "classifier"), str(beside / "pyfunc")]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1"}
        subprocess.run(argv, check=True, env=environment, cwd=FOLDER, stdout=subprocess.DEVNULL)
        beside.rename(models.folder)
    return models


def _gather(reference: Path, folder: Path) -> None:
    """A Hugging Face folder: MLflow keeps weights and tokenizer apart."""
    checkpoint = find_checkpoint(reference)
    for part in (checkpoint.weights, checkpoint.tokenizer.parent):
        shutil.copytree(part, folder, dirs_exist_ok=True)
