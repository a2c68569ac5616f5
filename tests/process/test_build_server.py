"""A model on a real tracking server with proxied artifacts is bundled over HTTP and works without the server."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from tests.support.build_store import SIGNATURE, predict_in_new_process
from tests.support.tracking_server import tracking_server

from likewise.builder.bundle import build_bundle, cached_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import ModelNotFound

TRUSTED = Trust(allow=True, entries=())
PIPELINE = """
import mlflow

class Pipeline(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.note = mlflow.artifacts.load_text("runs:/{run}/notes.txt")

    def predict(self, context, model_input, params=None):
        return [f"{{self.note}} {{x}}" for x in model_input["x"]]

mlflow.models.set_model(Pipeline())
"""


def test_model_on_a_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    store = tmp_path / "store"
    store.mkdir()
    with tracking_server(store) as address:
        mlflow.set_tracking_uri(address)
        try:
            with mlflow.start_run() as run:
                mlflow.log_text("noted", "notes.txt")
                (tmp_path / "code.py").write_text(PIPELINE.format(run=run.info.run_id))
                info = mlflow.pyfunc.log_model(
                    name="pipeline",
                    python_model=str(tmp_path / "code.py"),
                    signature=SIGNATURE,
                    pip_requirements=["mlflow"],
                    registered_model_name="pipeline",
                )
            artifact = mlflow.get_logged_model(info.model_id).artifact_location
            assert artifact.startswith("mlflow-artifacts:")
            uris = f"models:/{info.model_id}", "models:/pipeline/1", artifact
            by_id, by_version, by_artifact = (cached_bundle(uri, trust=TRUSTED) for uri in uris)
            with pytest.raises(ModelNotFound, match="models:/pipeline/2"):
                build_bundle("models:/pipeline/2", tmp_path / "d", trust=TRUSTED)
        finally:
            mlflow.set_tracking_uri(None)
    assert by_id.digest == by_version.digest == by_artifact.digest
    assert by_id.path == by_version.path == by_artifact.path
    assert [r.uri for r in by_id.manifest.references] == [f"runs:/{run.info.run_id}/notes.txt"]
    assert predict_in_new_process(by_version.path, tmp_path) == ["noted 1.0", "noted -1.0"]
