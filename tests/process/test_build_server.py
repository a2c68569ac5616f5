"""A model on a real tracking server, its artifacts proxied: bundled over HTTP, answering when the server is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from tests.support.build_store import SIGNATURE, ask_in_a_fresh_process

from likewise.builder.bundle import build_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import ModelNotFound

pytestmark = pytest.mark.slow
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


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """`mlflow server` on a free port, ended with all its workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "a"),
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _await(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  of this test's own server
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the tracking server does not answer at {url}")


def test_a_model_behind_a_tracking_server(tmp_path: Path) -> None:
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
            by_id = build_bundle(f"models:/{info.model_id}", tmp_path / "a", trust=TRUSTED)
            by_version = build_bundle("models:/pipeline/1", tmp_path / "b", trust=TRUSTED)
            artifact = mlflow.get_logged_model(info.model_id).artifact_location
            assert artifact.startswith("mlflow-artifacts:")
            by_artifact = build_bundle(artifact, tmp_path / "c", trust=TRUSTED)
            with pytest.raises(ModelNotFound, match="models:/pipeline/2"):
                build_bundle("models:/pipeline/2", tmp_path / "d", trust=TRUSTED)
        finally:
            mlflow.set_tracking_uri(None)
    assert by_id.digest == by_version.digest == by_artifact.digest
    assert [r.uri for r in by_id.manifest.references] == [f"runs:/{run.info.run_id}/notes.txt"]
    assert ask_in_a_fresh_process(by_version.path, tmp_path) == ["noted 1.0", "noted -1.0"]
