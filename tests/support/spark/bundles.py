"""Small bundles for the tests of Spark: a compiled text classifier, and a pyfunc that logs what it is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.support.classifier import make_classifier

from likewise import api
from likewise.bundles.format import EngineEntry, Environment, Manifest, Reference
from likewise.bundles.write import write_manifest
from likewise.engine.text import find_checkpoint
from likewise.engine.text.compiled import EXACT, compile_classifier, place
from likewise.pipeline import Classify, DetectLanguage, Pipeline, Respond

CLASSIFIER = "runs:/0123/model"
TEXT = {
    "inputs": json.dumps([{"name": "text", "type": "string", "required": True}]),
    "outputs": json.dumps([{"name": "text", "type": "string", "required": True}]),
}
ASKED = "asked.txt"
OPENED = "opened.txt"

# Answers in capitals with the text's length; logs its process when it loads, and each text that it is asked.
LOGGING = """
    import os
    import time
    from pathlib import Path

    import mlflow
    import pandas as pd

    class Logging(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self._log(OPENED, [str(os.getpid())])

        def predict(self, context, model_input, params=None):
            texts = list(model_input["text"])
            if any("poison" in str(text) for text in texts):
                raise ValueError("poison")
            self._log(ASKED, [repr(text) for text in texts])
            time.sleep(SECONDS * len(texts))
            return pd.DataFrame({"text": [str(t).upper() for t in texts], "length": [len(str(t)) for t in texts]})

        def _log(self, name, lines):
            with (Path(FOLDER) / name).open("a") as stream:
                stream.write("".join(line + chr(10) for line in lines))

    mlflow.models.set_model(Logging())
"""


def text_bundle(folder: Path) -> api.Bundle:
    """A pipeline of random weights, language and answer included, that needs OpenVINO and no torch."""
    bundle = folder / "text-bundle"
    (bundle / "model").mkdir(parents=True)
    (bundle / "model" / "MLmodel").write_text("flavors: {}\n")
    make_classifier(bundle / "references" / "one")
    compile_classifier(find_checkpoint(bundle / "references" / "one"), bundle / place(CLASSIFIER))
    pipeline = Pipeline(DetectLanguage(), Classify(CLASSIFIER), Respond(), uri="runs:/4567/pipeline")
    manifest = Manifest(
        files={},
        references=(Reference(CLASSIFIER, "references/one", "declared"),),
        signature_raw=TEXT,
        row_wise=True,
        pipeline=pipeline.declaration(),
        engines=(EngineEntry("openvino", EXACT, False, "sha256:1"),),
    )
    write_manifest(bundle, manifest)
    return api.open_bundle(bundle)


def logging_bundle(folder: Path, *, seconds: float = 0.0) -> api.Bundle:
    """A pyfunc of two outputs that takes `seconds` a row and writes `asked.txt` and `opened.txt` into `folder`."""
    bundle = folder / "logging-bundle"
    code = folder / "logging_model.py"
    head = f"FOLDER = {str(folder)!r}\nSECONDS = {seconds}\nASKED, OPENED = {ASKED!r}, {OPENED!r}\n"
    code.write_text(head + dedent(LOGGING))
    signature = ModelSignature(
        Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "text"), ColSpec("long", "length")])
    )
    mlflow.pyfunc.save_model(bundle / "model", python_model=str(code), signature=signature, pip_requirements=["mlflow"])
    manifest = Manifest(
        files={},
        signature_raw=signature.to_dict(),
        row_wise=True,
        environment=Environment("3.11", ("mlflow",)),
        engines=(EngineEntry("pyfunc", "native", True, "sha256:2"),),
    )
    write_manifest(bundle, manifest)
    return api.open_bundle(bundle, trust=True)


def log_of(folder: Path, name: str) -> list[str]:
    """The lines of `asked.txt` or `opened.txt`."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def predicted(bundle: api.Bundle, texts: Sequence[str | None]) -> list[str]:
    """What `Bundle.predict` says of each text."""
    return list(bundle.predict(pd.DataFrame({"text": texts}))["text"])
