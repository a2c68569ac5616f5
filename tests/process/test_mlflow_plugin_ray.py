"""The examples in the README of mlflow-ray-serve 0.2.0, run with Likewise as a replacement, on a real cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException
from tests.support.processes import run
from tests.support.ray.cluster import RayCluster, driver

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")

MLFLOW = [sys.executable, "-m", "mlflow", "deployments"]
TARGET = ("-t", "ray-serve")
FRAME = pd.DataFrame({"n": [1, 2]})
SMALL = {"ray_actor_options": '{"num_cpus": 0.2}', "graceful_shutdown_wait_loop_s": "0.2"}
MODEL = """
import mlflow

class Times(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * FACTOR

mlflow.models.set_model(Times())
"""
OTHER_APPLICATION = """
import sys, ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Other:
    def __call__(self):
        return "from another application"

ray.init(address=sys.argv[1], namespace="other", logging_level="ERROR")
serve.run(Other.bind(), name="other", route_prefix="/other")
print("ready", flush=True)
sys.stdin.read()
serve.delete("other")
"""

OTHER_ACTOR = """
import sys, ray

@ray.remote(num_cpus=int(sys.argv[2]))
class Other:
    def ready(self):
        return "ready"

ray.init(address=sys.argv[1], namespace="other", logging_level="ERROR")
other = Other.remote()
print(ray.get(other.ready.remote()), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking server's URI, with versions 1 (times 10) and 2 (times 100) of the registered model `times`."""
    folder = tmp_path_factory.mktemp("store")
    uri, signature = f"sqlite:///{folder}/mlflow.db", mlflow.models.infer_signature(FRAME, FRAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.chdir(folder)
        for factor in (10, 100):
            code = folder / f"times{factor}.py"
            code.write_text(MODEL.replace("FACTOR", str(factor)))
            mlflow.pyfunc.log_model(
                name="times",
                python_model=str(code),
                registered_model_name="times",
                signature=signature,
                pip_requirements=["mlflow", "pandas"],
            )
    return uri


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ray_cluster: RayCluster, store: str) -> Iterator[Path]:
    """The folders of a separate user of this cluster; remaining deployments are deleted at the end."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ray_cluster.caller_env, "MLFLOW_TRACKING_URI": store}.items():
            patch.setenv(name, value)
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"LIKEWISE_{name}_HOME", str(folder / name.lower()))
        yield folder
        client = get_deploy_client("ray-serve")
        for each in client.list_deployments():
            client.delete_deployment(each["name"])


def mlflow_deployments(*words: str) -> str:
    """The output of `mlflow deployments WORDS`, run in this process."""
    done = CliRunner().invoke(commands, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture
def two_free_cpus(ray_cluster: RayCluster) -> Iterator[None]:
    """Another user needs all but two CPUs of the cluster."""
    with driver(ray_cluster, OTHER_ACTOR, str(ray_cluster.cpus - 2)):
        yield


@pytest.mark.long
@pytest.mark.usefixtures("two_free_cpus")
def test_commands_of_the_readme(home: Path, ray_cluster: RayCluster) -> None:
    target, name, options = TARGET, ("--name", "times"), ("-C", "num_replicas=1")
    created = run([*MLFLOW, "create", *target, "-m", "models:/times/1", *name, *options]).stdout
    assert "python_function deployment times is created" in created
    assert "'name': 'times'" in mlflow_deployments("list", *target)
    shown = mlflow_deployments("get", *target, *name)
    assert f"url: {ray_cluster.url}/times" in shown
    assert "state: ready" in shown
    assert "about: 1 of 1 replicas are running" in shown
    body = home / "body.json"
    body.write_text(FRAME.to_json())
    predict = ("predict", *target, *name, "--input-path", str(body))
    assert json.loads(mlflow_deployments(*predict)) == {"n": {"0": 10, "1": 20}}
    assert "times is updated" in mlflow_deployments("update", *target, *name, "-C", "num_replicas=2")
    assert "about: 2 of 2 replicas are running" in mlflow_deployments("get", *target, *name)
    mlflow_deployments("update", *target, *name, "-m", "models:/times/2", "-C", "num_replicas=1")
    mlflow_deployments(*predict, "--output-path", str(home / "out.json"))
    assert json.loads((home / "out.json").read_text()) == {"n": {"0": 100, "1": 200}}
    posted = httpx.post(f"{ray_cluster.url}/times", json=FRAME.to_json())  # as users of that package send it
    assert posted.json() == [{"n": 100}, {"n": 200}]
    assert "times is deleted" in mlflow_deployments("delete", *target, *name)
    assert "times" not in mlflow_deployments("list", *target)
    assert "num_replicas" in mlflow_deployments("help", *target)


@pytest.mark.long
def test_python_code_of_the_readme_through_the_client_port(home: Path, ray_cluster: RayCluster) -> None:
    remote, local = get_deploy_client(f"ray-serve://{ray_cluster.client}"), get_deploy_client("ray-serve")
    created = remote.create_deployment(name="times", model_uri="models:/times/1", config={"num_replicas": 2, **SMALL})
    assert (created["name"], created["flavor"], created["config"]["num_replicas"]) == ("times", "python_function", 2)
    expected = pd.DataFrame({"n": [10, 20]})
    for data in (FRAME, FRAME.to_json(), FRAME.to_json(orient="records"), '{"inputs": {"n": [1, 2]}}'):
        pd.testing.assert_frame_equal(remote.predict(name="times", df=data), expected)
    pd.testing.assert_frame_equal(local.predict(deployment_name="times", df=np.array([1, 2])), expected)
    local.update_deployment(name="times", config={"num_replicas": 1})
    for client in (remote, local):
        assert client.get_deployment(name="times")["about"] == "1 of 1 replicas are running"
        assert [each["name"] for each in client.list_deployments()] == ["times"]
        with pytest.raises(MlflowException) as conflict:
            client.create_deployment(name="times", model_uri="models:/times/1")
        assert conflict.value.error_code == "RESOURCE_ALREADY_EXISTS"
    for client in (remote, local, remote):
        client.delete_deployment(name="times")
    with pytest.raises(MlflowException) as missing:
        remote.get_deployment(name="times")
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_other_applications_are_listed_and_not_modified(home: Path, ray_cluster: RayCluster) -> None:
    plugin = get_deploy_client("ray-serve")
    other = {"name": "other", "flavor": None, "url": f"{ray_cluster.url}/other", "state": "ready"}
    with driver(ray_cluster, OTHER_APPLICATION):
        assert plugin.list_deployments() == [other]
        assert plugin.get_deployment("other") == other
        with pytest.raises(MlflowException, match="'other' was not deployed by Likewise") as rejected:
            plugin.delete_deployment("other")
        assert rejected.value.error_code == "INVALID_PARAMETER_VALUE"
        assert httpx.get(f"{ray_cluster.url}/other").text == "from another application"
    assert plugin.list_deployments() == []


def test_invalid_options_and_missing_cluster_raise_mlflow_errors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = get_deploy_client("ray-serve")
    with pytest.raises(MlflowException, match="num_replicas") as typo:
        plugin.create_deployment("times", "models:/times/1", config={"num_replica": 1})
    assert typo.value.error_code == "INVALID_PARAMETER_VALUE"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(MlflowException, match=r"nothing is listening at 127\.0\.0\.1:9"):
        mlflow_deployments("list", *TARGET)
    with pytest.raises(MlflowException, match="ray start --head") as unavailable:
        plugin.list_deployments()
    assert unavailable.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_run_local_serves_in_the_foreground(home: Path) -> None:
    command = [*MLFLOW, "run-local", *TARGET, "-m", "models:/times/1", "--name", "here", "-C", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        try:
            assert service.stdout is not None
            url = next(line.strip() for line in service.stdout if line.startswith("http"))
            assert httpx.post(url, json=FRAME.to_dict("split")).json() == [{"n": 10}, {"n": 20}]
            service.send_signal(signal.SIGINT)
            assert service.wait(60) == 0
        finally:
            service.kill()
