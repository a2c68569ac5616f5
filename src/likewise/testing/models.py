"""Bundles to deploy, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

from likewise.builder.model import read_model
from likewise.bundles.format import EngineEntry, Manifest, Reference
from likewise.bundles.write import write_manifest
from likewise.core.extras import need

CODE = """
import mlflow, os, time

class Upper(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {loading}

    def predict(self, context, model_input, params=None):
        {predicting}
        return [{mark!r} + text.upper() for text in model_input["text"]]

mlflow.models.set_model(Upper())
"""


def upper_bundle(folder: Path, mark: str, *, loading: str = "pass", predicting: str = "pass") -> Path:
    """A bundle of a pyfunc that answers a text with `mark` and the text in capitals.

    loading, predicting: statements that it runs first, such as `raise ValueError("no such weights")`.
    """
    mlflow, models, types = (need(name, extra="mlflow") for name in ("mlflow", "mlflow.models", "mlflow.types"))
    folder.mkdir(parents=True)
    code, bundle = folder / "code.py", folder / "bundle"
    code.write_text(dedent(CODE).format(mark=mark, loading=loading, predicting=predicting))
    text = types.Schema([types.ColSpec("string", "text")])
    mlflow.pyfunc.save_model(
        bundle / "model",
        python_model=str(code),
        signature=models.ModelSignature(text, text),
        pip_requirements=["mlflow"],
    )
    facts = read_model(bundle / "model")
    manifest = Manifest({}, signature_raw=facts.signature_raw, row_wise=True, engines=facts.engines())
    return write_manifest(bundle, manifest).path


def classifier_bundle(folder: Path) -> Path:
    """A bundle of a small text classifier as a declared pipeline: torch in fp32, and no code of the model's own."""
    from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond
    from likewise.testing.classifier import make_classifier

    source, bundle = "runs:/0123/model", folder / "bundle"
    weights = make_classifier(bundle / "references" / "0-model")
    (bundle / "model").mkdir()
    steps = Cache(), DetectLanguage(), Classify(source), Respond()
    declared = Pipeline(*steps, uri="runs:/4567/pipeline").open({source: weights}.__getitem__).declaration()
    column = json.dumps([{"type": "string", "name": "text", "required": True}])
    manifest = Manifest(
        {},
        references=(Reference(source, "references/0-model", "declared"),),
        signature_raw={"inputs": column, "outputs": column},
        row_wise=True,
        pipeline=declared,
        engines=(EngineEntry("torch", "fp32", runs_code=False, digest="sha256:" + "0" * 64),),
    )
    return write_manifest(bundle, manifest).path
