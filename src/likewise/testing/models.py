"""Generates small bundles to deploy; `upper_bundle` starts the fastest."""

from __future__ import annotations

import json
from pathlib import Path

from likewise.bundles.format import EngineEntry, Manifest, Reference
from likewise.bundles.open import write_manifest
from likewise.core.extras import need
from likewise.pipeline.mlmodel import read_model
from likewise.testing.engine import MODEL, PythonFileKind

TEXT = json.dumps([{"type": "string", "name": "text", "required": True}])
SIGNATURE = {"inputs": TEXT, "outputs": TEXT}
UPPER = """
import os, time

def load():
    {loading}

def predict(text):
    {predicting}
    return {mark!r} + text.upper()
"""
PYFUNC = """
import mlflow

class Upper(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [{mark!r} + text.upper() for text in model_input["text"]]

mlflow.models.set_model(Upper())
"""


def upper_bundle(folder: Path, mark: str, *, loading: str = "pass", predicting: str = "pass") -> Path:
    """A bundle whose prediction is `mark` followed by the text in upper case; uses `PythonFileKind`; needs trust.

    loading, predicting: a statement to run first in `load` or `predict`, such as `raise ValueError("no such weights")`.
    """
    code = UPPER.format(mark=mark, loading=loading, predicting=predicting).encode()
    (folder / "model").mkdir(parents=True)
    (folder / "model" / MODEL).write_bytes(code)
    entry = EngineEntry(PythonFileKind.name, "native")
    return write_manifest(folder, Manifest({}, signature_raw=SIGNATURE, row_wise=True, engines=(entry,))).path


def pyfunc_bundle(folder: Path, mark: str) -> Path:
    """A bundle of an MLflow pyfunc model with the same predictions as `upper_bundle`; needs trust."""
    mlflow, models, types = (need(name, extra="mlflow") for name in ("mlflow", "mlflow.models", "mlflow.types"))
    folder.mkdir(parents=True)
    code = folder.with_name(f"{folder.name}.py")
    code.write_text(PYFUNC.format(mark=mark))
    text = types.Schema([types.ColSpec("string", "text")])
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(code),
        signature=models.ModelSignature(text, text),
        pip_requirements=["mlflow"],
    )
    facts = read_model(folder / "model")
    manifest = Manifest({}, signature_raw=facts.signature_raw, row_wise=True, engines=facts.engines())
    return write_manifest(folder, manifest).path


def classifier_bundle(folder: Path) -> Path:
    """A bundle of a small text classifier as a declared pipeline, with the engine torch in fp32; needs no trust."""
    from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond
    from likewise.testing.classifier import make_classifier

    source = "runs:/0123/model"
    weights = make_classifier(folder / "references" / "0-model")
    (folder / "model").mkdir()
    steps = Cache(), DetectLanguage(), Classify(source), Respond()
    declared = Pipeline(*steps, uri="runs:/4567/pipeline").open({source: weights}.__getitem__).declaration()
    manifest = Manifest(
        {},
        references=(Reference(source, "references/0-model", "declared"),),
        signature_raw=SIGNATURE,
        row_wise=True,
        pipeline=declared,
        engines=(EngineEntry("torch", "fp32"),),
    )
    return write_manifest(folder, manifest).path
