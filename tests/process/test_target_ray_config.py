"""Serve config files: generated without a cluster, and deployed with `serve deploy` on a real one."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import jsonschema
import pytest
import yaml
from tests.support.cli import call
from tests.support.processes import run
from tests.support.ray.cluster import RayCluster
from tests.support.ray.deployments import SMALL, delete, predictions_of, put, versioned
from tests.support.s3 import s3_server
from tests.support.waiting import until

from likewise.bundles.open import open_bundle
from likewise.core.cores import thread_environment
from likewise.core.errors import CodeNotTrusted, InputNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.ray.inspection import APP
from likewise.targets.ray.kubernetes import ray_service
from likewise.targets.ray.ray_options import OWN, SERVER, RayOptions
from likewise.targets.ray.serve_config import render
from likewise.targets.ray.stored import application, bundle_folder
from likewise.targets.ray.target import RayTarget, state_of
from likewise.testing.models import pyfunc_bundle

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "eu-west-1"}
SERVE = ("-c", "from ray.serve.scripts import cli; cli()")
FAST = replace(SMALL, timeout_s=RayOptions().timeout_s)  # a file does not support a time-out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    bundle = open_bundle(pyfunc_bundle(tmp_path_factory.mktemp("models") / "pyfunc", "1:"))
    return ModelSpec(bundle.digest, bundle.path, "runs:/1/model", trust=True, build=bundle.build)


def document(text: str) -> dict[str, Any]:
    (application,) = yaml.safe_load(text)["applications"]
    return dict(application)


def test_every_option_is_in_the_file(model: ModelSpec) -> None:
    options: dict[str, Any] = {
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
        "in_flight_bytes": 10_000,
        "cells_limit": 77,
        "run_timeout_s": 3.0,
        "in_process": True,
        "capture": "/mnt/captures",
        "capture_rate": 0.5,
        "capture_bytes": 100_000,
        "capture_days": 3.0,
    }
    others = {"autoscaling_config", "placement_group_bundles", "placement_group_strategy"}  # excluded by those above
    assert options.keys() | others | OWN == {each.name for each in fields(RayOptions)}
    app = document(render("book", model, RayOptions(**options), "/mnt/bundles/one"))
    (deployment,) = app["deployments"]
    assert (app["name"], app["route_prefix"]) == ("likewise-book", "/books/one")
    assert app["args"]["server"] == {name: options[name] for name in SERVER}
    assert app["args"]["bundle"] == "/mnt/bundles/one"
    assert app["args"]["model"] == model.portable()
    assert "folder" not in app["args"]["model"]
    actor = deployment.pop("ray_actor_options")
    assert (actor["num_cpus"], actor["resources"]) == (0.5, {"lamp": 1})
    assert actor["runtime_env"]["env_vars"] == thread_environment({"A": "b"}, 1)
    assert deployment.pop("name") == "model"
    expected = {name: value for name, value in options.items() if name not in {*SERVER, *OWN, "ray_actor_options"}}
    assert deployment | app["args"]["deployment"] == expected
    scaled = RayOptions(autoscaling_config={"min_replicas": 1, "max_replicas": 4}, placement_group_bundles=[{"CPU": 1}])
    (deployment,) = document(render("book", model, scaled))["deployments"]
    assert deployment["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4}
    assert deployment["placement_group_bundles"] == [{"CPU": 1}]
    assert "num_replicas" not in deployment


def test_unsupported_options_and_locations_are_rejected(model: ModelSpec) -> None:
    for options, cause in (
        (RayOptions(timeout_s=5), "does not support timeout_s"),
        (RayOptions(canary=10), "does not support canary"),
        (RayOptions(autoscaling_config={"min_replica": 1}), "has no key 'min_replica'"),
        (RayOptions(ray_actor_options={"num_cpu": 1}), "num_cpu"),
        (RayOptions(max_ongoing_requests=-1), "max_ongoing_requests"),
    ):
        with pytest.raises(WrongUsage, match=cause):
            render("book", model, options)
    for location in ("mnt/one", "ftp://host/one"):
        with pytest.raises(WrongUsage, match="cannot read a bundle"):
            render("book", model, RayOptions(), location)
    with pytest.raises(CodeNotTrusted):
        render("book", replace(model, trust=False), RayOptions())
    with pytest.raises(WrongUsage, match="takes bundle, deployment"):
        application({"bundle": "/x"})


SCHEMA = Path(__file__).parents[1] / "data" / "rayservice.schema.json"


def test_manifest_is_valid_by_the_schema_of_a_ray_service(model: ModelSpec) -> None:
    actor = {"num_cpus": 1.5, "num_gpus": 0.5, "memory": 3e9, "resources": {"lamp": 2}}
    options = RayOptions(num_replicas=4, ray_actor_options=actor)
    text = render("book", model, options, "s3://bundles/book", "registry.example/ray-book:1")
    manifest, schema = yaml.safe_load(text), json.loads(SCHEMA.read_text())
    jsonschema.validate(manifest, schema)
    assert "kubectl apply -f FILE" in text
    assert "  serveConfigV2: |\n    applications:\n    - name: likewise-book\n" in text
    assert yaml.safe_load(manifest["spec"]["serveConfigV2"]) == yaml.safe_load(
        render("book", model, options, "s3://bundles/book")
    )
    cluster = manifest["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    assert [workers[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [4, 4, 5]
    (pod,) = workers["template"]["spec"]["containers"]
    assert pod["image"] == "registry.example/ray-book:1"
    assert pod["resources"]["limits"] == {"cpu": "2", "nvidia.com/gpu": "1", "memory": "3000000000"}
    assert json.loads(json.loads(workers["rayStartParams"]["resources"])) == {"lamp": 2}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    growing = RayOptions(autoscaling_config={"min_replicas": 2, "max_replicas": 8}, max_surge_percent=0)
    (workers,) = ray_service("book", growing, "", "i")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [workers[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 8]
    workers["replcas"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {**manifest, "spec": {"rayClusterConfig": {**cluster, "workerGroupSpecs": [workers]}}}, schema
        )


@pytest.mark.parametrize(
    ("name", "options", "at", "cause"),
    [
        ("book", {}, None, "have no access to the bundle"),
        ("Book.1", {}, "s3://b/c", "'Book.1' is not a valid name of a RayService"),
        ("b" * 48, {}, "s3://b/c", "is not a valid name of a RayService"),
        ("book", {"ray_actor_options": {"resources": {"a'; b": 1}}}, "s3://b/c", "is not a valid resource"),
    ],
)
def test_what_kuberay_would_reject_is_wrong_usage(
    model: ModelSpec, name: str, options: dict[str, Any], at: str | None, cause: str
) -> None:
    with pytest.raises(WrongUsage, match=cause):
        render(name, model, RayOptions(**options), at, "image")


def likewise(folder: Path, *words: str) -> tuple[int, str, str]:
    done = call(*words, cwd=folder)
    return done.returncode, done.stdout, " ".join(done.stderr.split())


def test_command_writes_the_file_without_a_cluster(
    model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    file = tmp_path / "serve.yaml"
    command = ("deploy", str(model.folder), "--to", "ray", "--name", "book", "--trust")
    code, out, err = likewise(tmp_path, *command, "--plan", "-o", str(file), "-C", "num_replicas=2", "--json")
    assert (code, json.loads(out)["file"]) == (0, str(file)), err
    app = document(file.read_text())
    assert app["args"]["bundle"] == str(model.folder)
    assert app["deployments"][0]["num_replicas"] == 2
    assert "Every node needs Likewise" in file.read_text()
    assert "likewise[ray,mlflow]" in file.read_text()
    code, _, err = likewise(tmp_path, *command, "--plan", "-o", str(tmp_path / "no" / "file"))
    assert (code, "OUTPUT_REFUSED" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--to", "local", "--plan", "-o", "x.yaml"), "local does not support deployment files"),
        (("--to", "ray", "-o", "x.yaml"), "requires --plan"),
        (("--to", "ray", "--plan", "--bundle-at", "/mnt/x"), "--bundle-at requires"),
        (("--to", "ray", "--plan", "--image", "x"), "--image requires"),
        (("--to", "ray", "--plan", "-o", "x.yaml", "--image", "x", "--trust"), "add --bundle-at s3://BUCKET/PREFIX"),
    ],
)
def test_invalid_use_of_file_flags_is_wrong_usage(
    model: ModelSpec, tmp_path: Path, words: tuple[str, ...], cause: str
) -> None:
    code, _, err = likewise(tmp_path, "deploy", str(model.folder), "--name", "book", *words)
    assert code == 2
    assert cause in err
    assert list(tmp_path.iterdir()) == []


def test_bundle_in_s3_is_fetched_once_per_node(
    model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "s3.log") as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "LIKEWISE_CACHE_HOME": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        upload(model.folder, "bundles", "one")
        folder = bundle_folder("s3://bundles/one", "key")
        with pytest.raises(InputNotFound, match="no objects below s3://bundles/two"):
            bundle_folder("s3://bundles/two", "other")
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sent = {path.relative_to(model.folder): path.read_bytes() for path in model.folder.rglob("*") if path.is_file()}
    assert files == sent
    assert bundle_folder("s3://bundles/one", "key") == folder  # the S3 server has stopped
    with pytest.raises(InputNotFound, match="no folder /nowhere"):
        bundle_folder("/nowhere", "key")


def upload(folder: Path, bucket: str, prefix: str) -> None:
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": KEYS["AWS_DEFAULT_REGION"]})
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


def applications(cluster: RayCluster) -> dict[str, Any]:
    """Serve's status of all applications, by name."""
    response = httpx.get(f"{cluster.dashboard}/api/serve/applications/", timeout=30)
    assert response.status_code == 200, response.text
    return dict(response.json()["applications"])


def serve_deploy(cluster: RayCluster, text: str) -> None:
    """Run `serve deploy` as a user does, with the address of this cluster's proxies added to the file."""
    file = cluster.folder / "serve.yaml"
    file.write_text(f"{text}http_options:\n  host: 127.0.0.1\n  port: {cluster.http}\n")
    serve_command(cluster, "deploy", str(file))


def serve_command(cluster: RayCluster, *words: str) -> str:
    """The output of Ray's command `serve`."""
    return run([cluster.python, *SERVE, *words, "--address", cluster.dashboard], env=cluster.env).stdout


@pytest.mark.long
def test_serve_deploys_the_file_and_rejects_another_bundle(
    ray_cluster: RayCluster, ray_target: RayTarget, model: ModelSpec, tmp_path: Path
) -> None:
    other = versioned(tmp_path, 2)
    put(ray_target, "own", other)
    text = render("filed", model, replace(FAST, num_replicas=2, max_constructor_retry_count=2))
    more = render("other", model, replace(FAST, max_constructor_retry_count=1), str(other.folder))
    serve_deploy(ray_cluster, text + more.partition("applications:\n")[2])
    until(lambda: applications(ray_cluster)[f"{APP}filed"]["status"] == "RUNNING")
    assert predictions_of(f"{ray_cluster.url}/filed", "good") == ["1:GOOD"]
    ready = httpx.get(f"{ray_cluster.url}/filed/ready")
    assert (ready.status_code, ready.headers["X-Likewise-Bundle"]) == (200, model.digest)
    until(lambda: applications(ray_cluster)[f"{APP}other"]["status"] in ("DEPLOY_FAILED", "UNHEALTHY"))
    failed = json.dumps(applications(ray_cluster)[f"{APP}other"])
    assert f"but {model.digest} (build {model.build}) was deployed" in failed
    status = yaml.safe_load(serve_command(ray_cluster, "status"))["applications"]
    assert {name: status[f"{APP}{name}"]["status"] for name in ("own", "filed")} == {
        "own": "RUNNING",
        "filed": "RUNNING",
    }
    shown = yaml.safe_load_all(serve_command(ray_cluster, "config"))
    assert document(text) in [{key: each[key] for key in document(text)} for each in shown]
    [filed, failing] = ray_target._call("others", {})
    assert (filed["name"], filed["status"], filed["url"]) == (f"{APP}filed", "RUNNING", f"{ray_cluster.url}/filed")
    assert (failing["name"], state_of(failing)) == (f"{APP}other", "failing")
    serve_deploy(ray_cluster, "applications: []\n")
    until(lambda: set(applications(ray_cluster)) == {f"{APP}own"})
    delete(ray_target, "own")
