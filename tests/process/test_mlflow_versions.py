"""Models that earlier versions of MLflow logged are bundled, served and scored, here and in their own versions."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd
import pytest
from tests.support.processes import LIKEWISE, likewise, run, running

import likewise as api
from likewise.shipping.logged_environment import find_uv

pytestmark = pytest.mark.long
LOG_MODELS = Path(__file__).parents[1] / "support" / "log_models.py"
FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 0.0, 1.0, 0.0]})
VERSIONS = ["2.9.2", "2.12.2", "2.16.2", "2.22.1", "3.1.4", "3.5.1"]
OWN = {"2.9.2", "2.16.2"}  # also run in their own versions
ALLOWED = ("--trust", "--allow-versions")


@dataclass(frozen=True)
class Logged:
    """Models in `folder`, logged by MLflow `version`. answers: what they answered there."""

    folder: Path
    version: str
    answers: dict[str, list[object]]


@pytest.fixture(scope="module", params=VERSIONS)
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Logged in a separate environment, which the cache of pytest keeps."""
    version, folder = str(request.param), tmp_path_factory.mktemp("logged")
    cache = getattr(request.config, "cache", None)
    home = cache.mkdir("mlflow-versions") if cache is not None else tmp_path_factory.mktemp("mlflow")
    python = _python(Path(home), version)
    run([str(python), str(LOG_MODELS), str(folder)], cwd=folder)
    answers = json.loads((folder / "answers.json").read_text())
    assert answers.pop("mlflow") == version
    return Logged(folder, version, answers)


def _python(home: Path, version: str) -> Path:
    """The Python of an environment with this version of MLflow."""
    folder = home / version
    python, mark, uv = folder / "bin" / "python", folder / "complete", find_uv()
    packages = [f"mlflow=={version}", "scikit-learn", "setuptools<81"]
    if not mark.is_file():
        venv = [uv, "venv", "--clear", "--python", sys.executable] if uv else [sys.executable, "-m", "venv", "--clear"]
        subprocess.run([*venv, str(folder)], check=True)
        tool = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        subprocess.run([*tool, "--quiet", *packages], check=True)
        mark.touch()
    return python


def test_models_of_earlier_versions_answer_as_they_did(logged: Logged, tmp_path: Path) -> None:
    for name in ("signed", "unsigned", "pyfunc"):
        likewise("bundle", logged.folder / name, "-o", tmp_path / name, *ALLOWED)
    for name in ("signed", "unsigned"):
        with api.open_bundle(tmp_path / name, trust=True, allow_versions=True) as bundle:
            assert list(bundle.predict(FRAME)) == logged.answers["signed"]
    with api.open_bundle(tmp_path / "pyfunc", trust=True, allow_versions=True) as bundle:
        assert bundle.predict(pd.DataFrame({"text": ["a", "b"]}), {"mark": "?"}) == logged.answers["pyfunc"]
    assert _scored(tmp_path / "signed", tmp_path, *ALLOWED) == logged.answers["signed"]
    words = [*LIKEWISE, "serve", str(tmp_path / "pyfunc"), "-p", "0", *ALLOWED, "--json"]
    with running(words, tmp_path / "log") as server:
        body = {"dataframe_records": [{"text": "a"}, {"text": "b"}], "params": {"mark": "?"}}
        answer = httpx.post(f"{server.document()['url']}/invocations", json=body).json()
    assert answer == {"predictions": logged.answers["pyfunc"]}


def test_they_run_in_their_own_versions(logged: Logged, tmp_path: Path) -> None:
    if logged.version not in OWN:
        pytest.skip("two versions are enough")
    built = likewise("bundle", logged.folder / "signed", "-o", tmp_path / "bundle", "--trust", "--env")
    assert "logged with other versions" not in built.stderr
    assert _scored(tmp_path / "bundle", tmp_path, "--trust", "--env") == logged.answers["signed"]
    golden = ("--golden", tmp_path / "rows.csv")
    verified = likewise("verify", tmp_path / "bundle", "--against", "mlflow", *golden, "--trust", "--env", "--json")
    assert json.loads(verified.stdout)["agrees"]


def _scored(bundle: Path, folder: Path, *flags: str) -> list[object]:
    FRAME.to_csv(folder / "rows.csv", index=False)
    likewise("score", bundle, folder / "rows.csv", "-o", folder / "out.jsonl", *flags)
    return [json.loads(line)["predictions"] for line in (folder / "out.jsonl").read_text().splitlines()]
