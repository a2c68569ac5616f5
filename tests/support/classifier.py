"""The small classifier of `likewise.testing`, in MLflow's layout and as a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from likewise.bundles.format import EngineEntry, Manifest, Reference
from likewise.bundles.open import write_manifest
from likewise.engine.text import find_checkpoint
from likewise.engine.text.compiled import EXACT, classifier_path, compile_classifier
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond
from likewise.testing.classifier import POSITIONS, TEXTS, make_classifier

__all__ = ["POSITIONS", "TEXTS", "as_mlflow_flavor", "classifier_bundle", "make_classifier"]
CLASSIFIER = "runs:/0123/model"  # the URI in the pipeline below


def as_mlflow_flavor(plain: Path, folder: Path) -> Path:
    """The same files in the layout of MLflow's `transformers` flavor."""
    shutil.copytree(plain, folder / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    (folder / "components" / "tokenizer").mkdir(parents=True)
    shutil.copy(plain / "tokenizer.json", folder / "components" / "tokenizer")
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"transformers": {"model_binary": "model"}}}))
    return folder


def classifier_bundle(folder: Path, *, seed: int = 1, compiled: bool = False) -> Path:
    """A bundle of a declared pipeline: cache, language detection, classifier, response. It needs no trust.

    compiled: its only engine is OpenVINO in fp32; otherwise torch.
    """
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    reference = Reference(CLASSIFIER, "references/classifier", "declared")
    checkpoint = make_classifier(folder / reference.path, seed=seed)
    declared = Pipeline(Cache(), DetectLanguage(), Classify(CLASSIFIER), Respond(), uri="runs:/4567/pipeline")
    declaration = declared.declaration()
    if compiled:
        compile_classifier(find_checkpoint(checkpoint), folder / classifier_path(CLASSIFIER))
    text = json.dumps([{"type": "string", "name": "text", "required": True}])
    manifest = Manifest(
        {},
        references=(reference,),
        signature_raw={"inputs": text, "outputs": text},
        row_wise=True,
        pipeline=declaration,
        engines=(EngineEntry(*(("openvino", EXACT) if compiled else ("torch", "fp32"))),),
    )
    return write_manifest(folder, manifest).path
