"""What the README of mlflow-ray-serve 0.2.0 shows, with our package in its place: real commands, a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException
from tests.process.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.slow

MLFLOW = [sys.executable, "-m", "mlflow", "deployments"]
FRAME = pd.DataFrame({"n": [1, 2]})
REGISTER = """
import mlflow, pandas as pd, sys
frame = pd.DataFrame({"n": [1, 2]})
for factor in (10, 100):
    code = f"code{factor}.py"
    with open(code, "w") as stream:
        stream.write(sys.argv[1].replace("FACTOR", str(factor)))
    mlflow.pyfunc.log_model(
        name="times", python_model=code, input_example=frame, registered_model_name="times",
        signature=mlflow.models.infer_signature(frame, frame), pip_requirements=["mlflow", "pandas"],
    )
"""
MODEL = """
import mlflow

class Times(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * FACTOR

mlflow.models.set_model(Times())
"""
OTHERS = """
import sys, ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Other:
    def __call__(self):
        return "somebody else's"

ray.init(address=sys.argv[1], namespace="theirs", logging_level="ERROR")
if sys.argv[2] == "run":
    serve.run(Other.bind(), name="theirs", route_prefix="/theirs")
else:
    serve.delete("theirs")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(cpus=6) as made:
        yield made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking server's URI, with versions 1 (times 10) and 2 (times 100) of the registered model `times`."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    run([sys.executable, "-c", REGISTER, dedent(MODEL)], MLFLOW_TRACKING_URI=uri, cwd=folder)
    return uri


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: RayCluster, store: str) -> Iterator[Path]:
    """A user of their own, whose cluster this is; what they leave deployed is taken down."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name.lower()))
    for name, value in {**cluster.caller_env, "MLFLOW_TRACKING_URI": store}.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    client = get_deploy_client("ray-serve")
    for each in client.list_deployments():
        client.delete_deployment(each["name"])


def run(command: list[str], cwd: Path | None = None, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.timeout(1500)  # ten commands, each of which starts MLflow
def test_the_readmes_commands(home: Path, cluster: RayCluster) -> None:
    there, name = ["-t", "ray-serve"], ["--name", "times"]
    made = run([*MLFLOW, "create", *there, "-m", "models:/times/1", *name, "-C", "num_replicas=1"])
    assert "python_function deployment times is created" in made
    assert "'name': 'times'" in run([*MLFLOW, "list", *there])
    told = run([*MLFLOW, "get", *there, *name])
    assert f"url: {cluster.url}/times" in told
    assert "state: ready" in told
    assert "about: 1 of 1 replicas run" in told
    body = home / "body.json"
    body.write_text(FRAME.to_json())
    predict = [*MLFLOW, "predict", *there, *name, "--input-path", str(body)]
    assert json.loads(run(predict)) == {"n": {"0": 10, "1": 20}}
    assert "times is updated" in run([*MLFLOW, "update", *there, *name, "-C", "num_replicas=2"])
    assert "about: 2 of 2 replicas run" in run([*MLFLOW, "get", *there, *name])
    run([*MLFLOW, "update", *there, *name, "-m", "models:/times/2"])
    run([*predict, "--output-path", str(home / "out.json")])
    assert json.loads((home / "out.json").read_text()) == {"n": {"0": 100, "1": 200}}
    posted = httpx.post(f"{cluster.url}/times", json=FRAME.to_json())  # as its users wrote it
    assert posted.json() == [{"n": 100}, {"n": 200}]
    assert "times is deleted" in run([*MLFLOW, "delete", *there, *name])
    assert "times" not in run([*MLFLOW, "list", *there])
    assert "num_replicas" in run([*MLFLOW, "help", *there])


def test_the_readmes_python(home: Path, cluster: RayCluster) -> None:
    plugin = get_deploy_client("ray-serve")
    made = plugin.create_deployment(name="times", model_uri="models:/times/1", config={"num_replicas": 2})
    assert (made["name"], made["flavor"], made["config"]["num_replicas"]) == ("times", "python_function", 2)
    wanted = pd.DataFrame({"n": [10, 20]})
    for given in (FRAME, FRAME.to_json(), FRAME.to_json(orient="records"), '{"inputs": {"n": [1, 2]}}'):
        pd.testing.assert_frame_equal(plugin.predict(name="times", df=given), wanted)
    pd.testing.assert_frame_equal(plugin.predict(deployment_name="times", df=np.array([1, 2])), wanted)
    plugin.update_deployment(name="times", config={"num_replicas": 1})
    assert plugin.get_deployment(name="times")["about"] == "1 of 1 replicas run"
    assert [each["name"] for each in plugin.list_deployments()] == ["times"]
    with pytest.raises(MlflowException) as taken:
        plugin.create_deployment(name="times", model_uri="models:/times/1")
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    for _ in range(2):
        plugin.delete_deployment(name="times")
    with pytest.raises(MlflowException) as gone:
        plugin.get_deployment(name="times")
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_over_the_client_port(home: Path, cluster: RayCluster) -> None:
    far, near = get_deploy_client(f"ray-serve://{cluster.client}"), get_deploy_client("ray-serve")
    far.create_deployment("far", "models:/times/1", config={"num_replicas": "1"})
    for client in (far, near):
        assert [each["name"] for each in client.list_deployments()] == ["far"]
        assert client.predict("far", FRAME)["n"].tolist() == [10, 20]
    far.delete_deployment("far")


def test_what_others_run_is_listed_and_left_alone(home: Path, cluster: RayCluster) -> None:
    others = [sys.executable, "-c", OTHERS, cluster.address]
    run([*others, "run"])
    plugin = get_deploy_client("ray-serve")
    theirs = {"name": "theirs", "flavor": None, "url": f"{cluster.url}/theirs"}
    assert plugin.list_deployments() == [theirs]
    assert plugin.get_deployment("theirs") == theirs
    with pytest.raises(MlflowException, match="not deployed 'theirs'") as refused:
        plugin.delete_deployment("theirs")
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert httpx.get(f"{cluster.url}/theirs").text == "somebody else's"
    run([*others, "delete"])
    assert plugin.list_deployments() == []


def test_wrong_options_and_no_cluster_are_mlflows_errors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = get_deploy_client("ray-serve")
    with pytest.raises(MlflowException, match="num_replicas") as typo:
        plugin.create_deployment("times", "models:/times/1", config={"num_replica": 1})
    assert typo.value.error_code == "INVALID_PARAMETER_VALUE"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RAY_ADDRESS", "127.0.0.1:9")
        done = subprocess.run([*MLFLOW, "list", "-t", "ray-serve"], capture_output=True, text=True, timeout=120)
        assert done.returncode != 0
        assert "nothing answers at 127.0.0.1:9" in done.stderr
        with pytest.raises(MlflowException, match="ray start --head") as nobody:
            plugin.list_deployments()
        assert nobody.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_run_local_answers_in_the_foreground(home: Path) -> None:
    command = [*MLFLOW, "run-local", "-t", "ray-serve", "-m", "models:/times/1", "--name", "here", "-C", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        try:
            assert service.stdout is not None
            url = next(line.strip() for line in service.stdout if line.startswith("http"))
            assert httpx.post(url, json=FRAME.to_dict("split")).json() == [{"n": 10}, {"n": 20}]
            service.send_signal(signal.SIGINT)
            assert service.wait(60) == 0
        finally:
            service.kill()
