"""Building bundles: what is refused although it need not be, and the remedies of what has to be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlflow
import pytest
from tests.support.build_store import EXAMPLE, SIGNATURE, Store, _one_store, store
from tests.support.processes import run

from likewise.builder.bundle import build_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import ModelInvalid, NotSelfContained

__all__ = ["_one_store", "store"]
TRUSTED = Trust(allow=True)

SCRIPT = """
import json, sys, warnings
from pathlib import Path
import mlflow, pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

class Pipeline(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        import matplotlib.font_manager
        warnings.warn("the line of this call is shown")
        settings = Path("~/.keras/keras.json").expanduser()
        self.floatx = json.loads(settings.read_text())["floatx"] if settings.exists() else "float32"
        if {reads}:
            self.source = open({script!r}).read()

    def predict(self, context, model_input, params=None):
        warnings.warn("this one too")
        return pd.DataFrame({{"answer": [self.floatx[:5] for _ in model_input["x"]]}})

signature = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("string", "answer")]))
with mlflow.start_run(run_id={run!r}):
    mlflow.pyfunc.log_model(
        name=sys.argv[1], python_model=Pipeline(), signature=signature, input_example=pd.DataFrame({{"x": [1.0]}}),
        pip_requirements=["mlflow"],
    )
"""


def _log_by_script(store: Store, name: str, home: Path, *, reads: bool) -> str:
    """Log a class of a script's own module, as the book's scripts do; returns the model's URI."""
    script = store.folder.parent / "scripts" / f"{name}.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(SCRIPT.format(reads=reads, script=str(script), run=store.run_id))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store.tracking_uri, "HOME": str(home)}
    run([sys.executable, script, name], cwd=script.parent, env=environment)
    return f"runs:/{store.run_id}/{name}"


def test_class_of_a_script_that_warns_and_reads_settings_is_bundled_next_to_the_script(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings do not change its answer, `float`."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"floatx": "float16"}')
    uri = _log_by_script(store, "warns", tmp_path, reads=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    lines: list[str] = []
    bundle = build_bundle(uri, tmp_path / "bundle", trust=TRUSTED, report=lines.append)
    assert bundle.manifest.measured["proved_rows"] == 1
    reported = [line for line in lines if "settings" in line]
    assert len(reported) == 1
    assert reported[0].endswith(f"which the bundle does not contain: {tmp_path}/.keras/keras.json (floatx: float16)")
    assert not [line for line in lines if "train.py" in line]


def test_script_that_is_read_as_data_is_rejected(store: Store, tmp_path: Path) -> None:
    uri = _log_by_script(store, "reads", tmp_path, reads=True)
    with pytest.raises(NotSelfContained, match=r"opens the file .*/scripts/reads\.py"):
        build_bundle(uri, tmp_path / "bundle", trust=TRUSTED)


OUTSIDE = """
def load_context(self, context):
    import socket, tempfile
    with open({words}) as file:
        self.word = file.read()
    {fetch}
    with open({scratch} + "/scratch.txt", "w") as file:
        file.write("x")
    {query}
    self.model = mlflow.sklearn.load_model(uri)

def predict(self, context, model_input, params=None):
    return pd.DataFrame({{"answer": [self.word + each for each in self.model.predict(model_input.to_numpy())]}})
"""


def test_every_remedy_of_what_a_bundle_cannot_contain_works(store: Store, tmp_path: Path) -> None:
    words = store.folder / "words.txt"
    words.write_text("well ")
    body = OUTSIDE.format(
        words=repr(str(words)),
        fetch='socket.socket().connect_ex(("192.0.2.1", 9)) if socket.setdefaulttimeout(0.01) is None else None',
        query="uri = f\"models:/classifier/{mlflow.MlflowClient().get_registered_model('classifier').name and 1}\"",
        scratch="__file__.rpartition('/')[0]",
    )
    refused = store.pipeline("outside_of_it", body)
    with pytest.raises(NotSelfContained) as raised:
        build_bundle(refused, tmp_path / "bundle", trust=TRUSTED)
    for access in ("opens the file", "connects to 192.0.2.1:9", "get_registered_model", "modifies its own file"):
        assert access in raised.value.cause, raised.value.cause
    for remedy in ("artifacts=", "when you log the model", "models:/name@alias", "tempfile.mkdtemp()"):
        assert remedy in raised.value.remedy

    followed = OUTSIDE.format(
        words='context.artifacts["words"]',
        fetch="",
        query='uri = "models:/classifier@champion"',
        scratch="tempfile.mkdtemp()",
    )
    uri = store.pipeline("followed", followed, artifacts={"words": str(words)})
    words.unlink()
    assert build_bundle(uri, tmp_path / "bundle", trust=TRUSTED).manifest.measured["proved_rows"] == len(EXAMPLE)


IMPORTS = """
import mlflow
import pandas as pd
from helper_of_remedies import WORD

class Pipeline(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"answer": [WORD for _ in model_input["x"]]})

mlflow.models.set_model(Pipeline())
"""


def test_module_that_was_not_logged_is_named_with_the_way_to_log_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = tmp_path / "helper_of_remedies.py"
    helper.write_text('WORD = "helped"')
    (tmp_path / "model.py").write_text(IMPORTS)

    def log(name: str, **options: object) -> str:
        with mlflow.start_run(run_id=store.run_id):
            arguments = {"signature": SIGNATURE, "pip_requirements": ["mlflow"], **options}
            mlflow.pyfunc.log_model(name=name, python_model=str(tmp_path / "model.py"), **arguments)
        return f"runs:/{store.run_id}/{name}"

    with pytest.raises(ModelInvalid, match="helper_of_remedies") as raised:
        build_bundle(log("without"), tmp_path / "bundle", trust=TRUSTED)
    assert "its file or folder in code_paths" in raised.value.remedy
    build_bundle(log("with", code_paths=[str(helper)]), tmp_path / "bundle", trust=TRUSTED)
