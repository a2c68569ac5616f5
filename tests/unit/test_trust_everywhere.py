"""An untrusted model runs no code through any interface, regardless of its manifest."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow.deployments
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from tests.support.cli import call

import likewise
from likewise import api, deployments
from likewise.batch import ScoreOptions
from likewise.bundles import trust
from likewise.bundles.format import MANIFEST, EngineEntry, Manifest, ModelSource, load_manifest
from likewise.bundles.open import open_bundle, write_manifest
from likewise.cli import models
from likewise.cli.screen import Screen
from likewise.container.serve import main as container
from likewise.core.digests import sha256_json
from likewise.core.errors import CodeNotTrusted, EngineUnavailable, LikewiseError
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import CompileOptions
from likewise.engine.load import open_engine
from likewise.images.build import build_image
from likewise.mlflow_plugins.client import run_local
from likewise.parity.verify_options import VerifyOptions
from likewise.spark import udf
from likewise.targets.ray import serve_config
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.store import ship
from likewise.targets.spark.worker import engine_of
from likewise.testing.models import pyfunc_bundle, upper_bundle

CANARY = "import pathlib; pathlib.Path({canary!r}).touch()"
GOLDEN = VerifyOptions(golden=Path("in.csv"))
FRAME = pd.DataFrame({"text": ["a"]})


def forged(folder: Path, kind: str, canary: Path) -> Path:
    """A bundle whose code creates `canary`, and whose manifest, in format 1, denies that its engine runs code."""
    if kind == "testing":
        upper_bundle(folder, "x", loading=CANARY.format(canary=str(canary)))
    else:
        pyfunc_bundle(folder, "x")
        (code,) = (folder / "model").glob("*.py")
        code.write_text(CANARY.format(canary=str(canary)) + "\n" + code.read_text())
        write_manifest(folder, open_manifest(folder))
    body = json.loads((folder / MANIFEST).read_bytes())
    del body["build"], body["checksum"], body["rates"]
    engines = [{**entry, "runs_code": False, "digest": "sha256:0"} for entry in body["engines"]]
    body |= {"likewise": 1, "engines": engines, "environment": {**body["environment"], "digest": "sha256:0"}}
    body["seal"] = sha256_json(body)
    (folder / MANIFEST).write_text(json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    open_bundle(folder)  # it is valid
    return folder


def open_manifest(folder: Path) -> Manifest:
    return load_manifest((folder / MANIFEST).read_bytes())


@pytest.fixture(params=["testing", "pyfunc"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name))
    monkeypatch.setenv("LIKEWISE_TRUST", "strict")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("text\na\n")
    return forged(tmp_path / "bundle", request.param, tmp_path / "canary")


def spec_of(bundle: Path) -> ModelSpec:
    opened = api.open_bundle(bundle)
    return opened.spec()


PYTHON: dict[str, Callable[[Path], object]] = {
    "predict": lambda bundle: likewise.open_bundle(bundle).predict(FRAME),
    "engine": lambda bundle: likewise.open_bundle(bundle).engine("testing"),
    "open_engine": lambda bundle: open_engine(open_bundle(bundle), ModelSpec("", trust=False)),
    "serve": likewise.serve,
    "score": lambda bundle: likewise.score(bundle, "in.csv", "out"),
    "score on Spark": lambda bundle: api.score(bundle, "in.csv", "out", options=ScoreOptions(runner="spark")),
    "verify": lambda bundle: likewise.verify(bundle, ["local"], options=GOLDEN),
    "verify with MLflow": lambda bundle: likewise.verify(bundle, ["mlflow"], options=GOLDEN),
    "deploy": lambda bundle: likewise.deploy(bundle, "local", "one"),
    "Spark UDF": lambda bundle: udf(None, bundle, ship=True),
    "Spark worker": lambda bundle: engine_of("0", spec_of(bundle), str(bundle)),
    "Ray shipping": lambda bundle: ship({"model": spec_of(bundle).as_dict()}),
    "Ray config file": lambda bundle: serve_config.render("one", spec_of(bundle), RayOptions()),
    "image": lambda bundle: build_image(open_bundle(bundle), "one:1", spec_of(bundle)),
    "batch transform": lambda bundle: deployments.job(spec_of(bundle), "sagemaker:/us-east-1", "s3://a/b", "s3://a/c"),
}


@pytest.mark.parametrize("interface", PYTHON)
def test_python_interface_runs_no_untrusted_code(bundle: Path, interface: str, tmp_path: Path) -> None:
    with pytest.raises(LikewiseError) as caught:
        PYTHON[interface](bundle)
    expected = (CodeNotTrusted, EngineUnavailable) if interface == "engine" else CodeNotTrusted
    assert isinstance(caught.value, expected), caught.value
    assert not (tmp_path / "canary").exists()


COMMANDS: dict[str, tuple[str, ...]] = {
    "serve": ("serve", "bundle", "-p", "0"),
    "serve with workers": ("serve", "bundle", "-p", "0", "--workers", "1"),
    "score": ("score", "bundle", "in.csv", "-o", "out"),
    "score on Spark": ("score", "bundle", "in.csv", "-o", "out", "--runner", "spark"),
    "verify": ("verify", "bundle", "--against", "mlflow", "--golden", "in.csv"),
    "image build": ("image", "build", "bundle", "-t", "one:1"),
    "image dockerfile": ("image", "dockerfile", "bundle", "-o", "context"),
    "transform": ("transform", "bundle", "s3://a/b", "-o", "s3://a/c", "--to", "sagemaker:/us-east-1"),
    "rehearsal": ("deploy", "bundle", "--to", "sagemaker:/us-east-1", "--name", "one", "--rehearse"),
    "Ray config file": ("deploy", "bundle", "--to", "ray", "--name", "one", "--plan", "-o", "ray.yaml"),
    **{
        f"{target} {' '.join(more)}": ("deploy", "bundle", "--to", target, "--name", "one", *more)
        for target in ("local", "ray", "container", "sagemaker:/us-east-1")
        for more in ((), ("--plan",))
    },
}


@pytest.mark.parametrize("interface", COMMANDS)
def test_command_runs_no_untrusted_code(bundle: Path, interface: str, tmp_path: Path) -> None:
    _refused(*COMMANDS[interface])
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "words", [("bundle", "-o", "new"), ("inspect",), ("serve", "-p", "0"), ("verify", "--against", "mlflow")]
)
@pytest.mark.parametrize("bundle", ["pyfunc"], indirect=True)
def test_logged_model_is_not_loaded(bundle: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    _refused(words[0], bundle / "model", *words[1:])
    assert not (tmp_path / "canary").exists()


def _refused(*words: str | Path) -> None:
    done = call(*words, "--json")
    assert done.returncode == 1, done
    assert "CODE_NOT_TRUSTED" in done.stdout + done.stderr, done


@pytest.mark.parametrize("more", [(), ("--measure",)])
def test_inspecting_a_bundle_runs_no_code(bundle: Path, more: tuple[str, ...], tmp_path: Path) -> None:
    done = call("inspect", "bundle", *more, "--json")
    assert (done.returncode, "ENGINE_UNAVAILABLE" in done.stdout + done.stderr) == ((1, True) if more else (0, False))
    assert "runs_code" in done.stdout or more
    assert "the bundle has format 1, which does not record its build digest" in done.stderr
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "target", ["likewise:/local", "likewise:/container", "likewise:/sagemaker/us-east-1", "ray-serve"]
)
def test_plugins_run_no_untrusted_code_if_trust_is_strict(bundle: Path, target: str, tmp_path: Path) -> None:
    client = mlflow.deployments.get_deploy_client(target)
    create = partial(client.create_deployment, "one", str(bundle))
    for deploy in (create, partial(run_local, "one", str(bundle), None, {"port": "0"})):
        with pytest.raises(MlflowException, match="has not been allowed") as caught:
            deploy()
        assert caught.value.error_code == "PERMISSION_DENIED"
    assert not (tmp_path / "canary").exists()


def test_container_runs_no_untrusted_code(bundle: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "LIKEWISE_BUNDLE": str(bundle), "LIKEWISE_PORT": "0"}
    done = call("serve", program=lambda: sys.exit(container(["serve"])), env=env)
    assert (done.returncode, "CODE_NOT_TRUSTED" in done.stderr) == (1, True), done
    assert not (tmp_path / "canary").exists()


STEP = """
import pathlib, dataclasses
from likewise.pipeline import Step
pathlib.Path({canary!r}).touch()

@dataclasses.dataclass
class Evil(Step):
    pass
"""


@pytest.mark.parametrize("engine", ["torch", "openvino", "none", "pyfunc"])
def test_declared_step_with_code_is_not_imported(
    bundle: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "model" / "evil.py").write_text(STEP.format(canary=str(tmp_path / "canary")))
    monkeypatch.syspath_prepend(str(bundle / "model"))
    manifest = open_manifest(bundle)
    declared = {"format": 1, "steps": [{"step": "evil:Evil"}]}
    write_manifest(bundle, replace(manifest, pipeline=declared, engines=(EngineEntry(engine, "fp32"),)))
    with pytest.raises((CodeNotTrusted, EngineUnavailable)):
        likewise.open_bundle(bundle).predict(FRAME)
    assert not (tmp_path / "canary").exists()


def test_existing_bundle_is_not_trusted_because_of_the_models_uri(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be another build of the same model, by somebody else."""
    monkeypatch.setattr("likewise.builder.bundle.build_bundle", lambda *_, **__: open_bundle(bundle))
    trust.remember("models:/team/")
    with pytest.raises(CodeNotTrusted):
        likewise.bundle("models:/team/1", bundle).predict(FRAME)


def test_building_with_trust_states_that_it_holds_for_one_command(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_bundle(bundle)
    monkeypatch.setattr("likewise.builder.bundle.build_bundle", lambda *_, **__: opened)
    for expected in (1, 0):
        models.bundle("models:/team/1", bundle, compiling=CompileOptions(), trust=True, screen=Screen())
        assert capsys.readouterr().err.count(f"likewise trust {opened.build}") == expected
        trust.remember(opened.build)


def test_a_bundle_does_not_control_the_terminal(tmp_path: Path) -> None:
    folder = upper_bundle(tmp_path / "bundle", "x")
    source = ModelSource("models:/a\x1b[2J\x9b1m\u202e/1", "models:/a/1")
    write_manifest(folder, replace(open_manifest(folder), source=source))
    done = call("inspect", folder)
    assert done.returncode == 0, done
    assert r"models:/a\x1b[2J\x9b1m\u202e/1" in done.stdout
