"""Serve config files: written without a cluster, and taken by `serve deploy` on a real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from tests.process.ray_cluster import PATIENCE, RayCluster, free_ports, ray_cluster
from tests.process.ray_room import SMALL, version_of, versioned
from tests.support.s3 import s3_server

from likewise.core.errors import CodeNotTrusted, InputNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.ray.options import OWN, SERVER, RayOptions
from likewise.targets.ray.serve_config import written
from likewise.targets.ray.stored import application, fetched
from likewise.targets.ray.target import RayTarget

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "eu-west-1"}
DEPLOY = ("-c", "from ray.serve.scripts import cli; cli()", "deploy")
TELL = "import ray, json, sys; from ray import serve; ray.init(sys.argv[1], logging_level='ERROR'); "
TELL += "a = serve.status().applications[sys.argv[2]]; "
TELL += "print(json.dumps([a.status, a.message, [d.message for d in a.deployments.values()]]))"
FAST = replace(SMALL, timeout_s=RayOptions().timeout_s)  # how long to wait has no place in a file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return versioned(tmp_path_factory.mktemp("models"), 1)


def document(text: str) -> dict[str, Any]:
    (application,) = yaml.safe_load(text)["applications"]
    return dict(application)


def test_every_option_has_its_place(model: ModelSpec) -> None:
    given: dict[str, Any] = {
        "num_replicas": 3,
        "ray_actor_options": {"num_cpus": 0.5, "resources": {"lamp": 1}, "runtime_env": {"env_vars": {"A": "b"}}},
        "max_ongoing_requests": 7,
        "max_queued_requests": 8,
        "max_replicas_per_node": 2,
        "health_check_period_s": 4.5,
        "health_check_timeout_s": 9.5,
        "graceful_shutdown_wait_loop_s": 1.5,
        "graceful_shutdown_timeout_s": 33.0,
        "max_constructor_retry_count": 5,
        "max_surge_percent": 40,
        "rolling_update_percentage": 0.5,
        "logging_config": {"log_level": "DEBUG"},
        "route_prefix": "/books/one",
        "deadline_s": 5.0,
        "queue_tokens": 99,
        "cache_bytes": 0,
        "body_limit_bytes": 1000,
    }
    others = {"autoscaling_config", "placement_group_bundles", "placement_group_strategy"}  # excluded by those above
    assert given.keys() | others | OWN == {each.name for each in fields(RayOptions)}
    said = document(written("book", model, RayOptions(**given), "/mnt/bundles/one"))
    (made,) = said["deployments"]
    assert (said["name"], said["route_prefix"]) == ("likewise-book", "/books/one")
    assert said["args"]["server"] == {name: given[name] for name in SERVER}
    assert said["args"]["bundle"] == "/mnt/bundles/one"
    assert said["args"]["model"] == {"digest": model.digest, "engine": None, "precision": None, "trust": True}
    actor = made.pop("ray_actor_options")
    assert (actor["num_cpus"], actor["resources"]) == (0.5, {"lamp": 1})
    assert actor["runtime_env"]["env_vars"] == {"A": "b", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    assert made.pop("name") == "model"
    expected = {name: value for name, value in given.items() if name not in {*SERVER, *OWN, "ray_actor_options"}}
    assert made | said["args"]["deployment"] == expected
    scaled = RayOptions(autoscaling_config={"min_replicas": 1, "max_replicas": 4}, placement_group_bundles=[{"CPU": 1}])
    (made,) = document(written("book", model, scaled))["deployments"]
    assert made["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4}
    assert made["placement_group_bundles"] == [{"CPU": 1}]
    assert "num_replicas" not in made


def test_what_would_be_lost_is_refused(model: ModelSpec) -> None:
    for options, cause in (
        (RayOptions(timeout_s=5), "no place for timeout_s"),
        (RayOptions(canary=10), "no place for canary"),
        (RayOptions(autoscaling_config={"min_replica": 1}), "has no 'min_replica'"),
        (RayOptions(ray_actor_options={"num_cpu": 1}), "num_cpu"),
        (RayOptions(max_ongoing_requests=-1), "max_ongoing_requests"),
    ):
        with pytest.raises(WrongUsage, match=cause):
            written("book", model, options)
    for place in ("mnt/one", "ftp://host/one"):
        with pytest.raises(WrongUsage, match="cannot read a bundle"):
            written("book", model, RayOptions(), place)
    with pytest.raises(CodeNotTrusted):
        written("book", replace(model, trust=False), RayOptions())
    with pytest.raises(WrongUsage, match="takes bundle, deployment"):
        application({"bundle": "/x"})


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "likewise.cli", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, " ".join(done.stderr.split())


def test_the_command_writes_the_file_and_reaches_no_cluster(
    model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    file = tmp_path / "serve.yaml"
    command = ("deploy", str(model.folder), "--to", "ray", "--name", "book", "--trust")
    code, out, err = run(tmp_path, *command, "--plan", "-o", str(file), "-C", "num_replicas=2", "--json")
    assert (code, json.loads(out)["file"]) == (0, str(file)), err
    said = document(file.read_text())
    assert said["args"]["bundle"] == str(model.folder)
    assert said["deployments"][0]["num_replicas"] == 2
    assert "Every node needs Likewise" in file.read_text()
    assert "likewise[ray,mlflow]" in file.read_text()
    code, _, err = run(tmp_path, *command, "--plan", "-o", str(tmp_path / "no" / "file"))
    assert (code, "OUTPUT_REFUSED" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--to", "local", "--plan", "-o", "x.yaml"), "local has no file"),
        (("--to", "ray", "-o", "x.yaml"), "does nothing"),
        (("--to", "ray", "--plan", "--bundle-at", "/mnt/x"), "--bundle-at goes with"),
    ],
)
def test_a_file_that_cannot_be_meant_is_wrong_usage(
    model: ModelSpec, tmp_path: Path, words: tuple[str, ...], cause: str
) -> None:
    code, _, err = run(tmp_path, "deploy", str(model.folder), "--name", "book", *words)
    assert code == 2
    assert cause in err
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_in_s3_comes_once_a_node(model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3.log") as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "LIKEWISE_CACHE_HOME": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        upload(model.folder, "bundles", "one")
        folder = fetched("s3://bundles/one", "key")
        with pytest.raises(InputNotFound, match="nothing below s3://bundles/two"):
            fetched("s3://bundles/two", "other")
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sent = {path.relative_to(model.folder): path.read_bytes() for path in model.folder.rglob("*") if path.is_file()}
    assert files == sent
    assert fetched("s3://bundles/one", "key") == folder  # the store has gone
    with pytest.raises(InputNotFound, match="no folder /nowhere"):
        fetched("/nowhere", "key")


def upload(folder: Path, bucket: str, prefix: str) -> None:
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": KEYS["AWS_DEFAULT_REGION"]})
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


class Dashed(RayCluster):
    """A head with the dashboard, which `serve deploy` talks to; Serve does not run yet."""

    dashboard = ""

    def start(self) -> None:
        gcs, self.http, dashboard, agent = free_ports(4)
        command = [str(self.python), "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"]
        command += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", f"--num-cpus={self.cpus}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={self.folder / 'ray'}"]
        command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        with (self.folder / "head.log").open("wb") as log:
            self.head = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, start_new_session=True)
        self.address, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + PATIENCE
        while not self._answers(f"{self.dashboard}/api/serve/applications/"):
            assert time.monotonic() < deadline, (self.folder / "head.log").read_text()[-3000:]
            time.sleep(0.2)

    def _answers(self, url: str) -> bool:
        try:
            return httpx.get(url, timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    def deploy(self, text: str) -> None:
        """What a user does, with the address of this cluster's proxies put into the file."""
        file = self.folder / "serve.yaml"
        file.write_text(f"{text}http_options:\n  host: 127.0.0.1\n  port: {self.http}\n")
        done = subprocess.run(
            [str(self.python), *DEPLOY, str(file), "--address", self.dashboard],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def await_status(self, name: str, *wanted: str) -> str:
        """Until Serve says so of the application; all that it says then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            told = [str(self.python), "-c", TELL, self.address, f"likewise-{name}"]
            done = subprocess.run(told, env=self.env, capture_output=True, text=True, timeout=PATIENCE)
            said = done.stdout.splitlines()[-1:] or [done.stderr[-500:]]
            if done.returncode == 0 and json.loads(said[0])[0] in wanted:
                return said[0]
            assert time.monotonic() < deadline, said
            time.sleep(0.5)


@pytest.fixture(scope="module")
def dashed() -> Iterator[Dashed]:
    folder = Path(os.path.realpath("/tmp")) / f"lwd-{os.getpid()}"
    folder.mkdir()
    made = Dashed(folder, Path(sys.executable), 4, {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"})
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_serve_deploys_the_file(dashed: Dashed, model: ModelSpec, tmp_path: Path) -> None:
    text = written("filed", model, replace(FAST, num_replicas=2, max_constructor_retry_count=2))
    dashed.deploy(text)
    dashed.await_status("filed", "RUNNING")
    answer = httpx.post(f"{dashed.url}/filed", json={"inputs": ["good"]}, timeout=60)
    assert version_of(answer) == 1
    assert answer.headers["X-Likewise-Bundle"] == model.digest
    assert httpx.get(f"{dashed.url}/filed/ready").status_code == 200


@pytest.mark.slow
def test_another_bundle_at_the_place_is_not_served(dashed: Dashed, model: ModelSpec, tmp_path: Path) -> None:
    other = versioned(tmp_path, 2)
    dashed.deploy(written("other", model, replace(FAST, max_constructor_retry_count=1), str(other.folder)))
    said = dashed.await_status("other", "DEPLOY_FAILED", "UNHEALTHY")
    assert f"arrived where {model.digest} was deployed" in said


@pytest.mark.slow
def test_the_faster_ingress_is_offered(model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_cluster() as cluster:
        for name in ("RAY_AUTH_MODE", "LIKEWISE_CACHE_HOME"):
            monkeypatch.setenv(name, cluster.env[name])
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        (offer,) = RayTarget("ray").check(model, SMALL)
    assert ("Python proxy" in offer.cause, offer.fatal) == (True, False)
