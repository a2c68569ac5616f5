"""The target `ray` without Ray: addresses, options, plans, requirements of a cluster, and the app in a replica."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.support.ray.wrong_options import WRONG

from likewise.core.cores import thread_environment
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.core.unpack import unpacked
from likewise.server import ServerOptions
from likewise.targets.base import Receipt, output_of
from likewise.targets.ray.application import version_of
from likewise.targets.ray.inspection import url_of
from likewise.targets.ray.preflight import capacity_findings, more_needed
from likewise.targets.ray.ray_options import OWN, SERVER, RayOptions
from likewise.targets.ray.replica import _unpacked, part_name
from likewise.targets.ray.service import ReplicaApp
from likewise.targets.ray.target import RayTarget
from likewise.targets.ray.valid_options import require_valid

MODEL = ModelSpec("sha256:" + "a" * 64, Path("/bundle"), "models:/m/1")
HTTP = {"host": "127.0.0.1", "port": 8000, "scheme": "http", "root_path": ""}
PYTHON_PROXY = {"haproxy": False, "installed": False, "nodes": 1, "taken": False}
CLUSTER = {
    "address": "192.0.2.1:6379",
    "free": {"CPU": 4.0},
    "largest": {"CPU": 2.0},
    "running": None,
    "serve": HTTP,
    "ingress": PYTHON_PROXY,
}
RECEIPT = Receipt("ray", "one", MODEL, as_json(RayOptions()), {"ship": {"shipment": {"bundle": {}}}}, "", "")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("ray", "auto"),
        ("ray-serve", "auto"),
        ("ray-serve://head:10001", "ray://head:10001"),
        ("ray://head:10001/", "ray://head:10001"),
    ],
)
def test_addresses(uri: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert RayTarget(uri).address == address


def test_address_from_the_environment_and_invalid_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert RayTarget("ray").address == "10.0.0.1:6379"
    for uri in ("ray:head", "raylet", "ray-serve:/x"):
        with pytest.raises(WrongUsage):
            RayTarget(uri)


def test_options_from_strings_are_passed_to_ray() -> None:
    options = coerce(
        RayOptions,
        {
            "num_replicas": "2",
            "ray_actor_options": '{"num_cpus": 2.5, "runtime_env": {"env_vars": {"RAYON_NUM_THREADS": "7"}}}',
            "max_queued_requests": "9",
            "deadline_s": "3",
        },
    )
    deployment = options.deployment()
    assert (deployment["num_replicas"], deployment["max_queued_requests"]) == (2, 9)
    threads = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
    assert threads == thread_environment({"RAYON_NUM_THREADS": "7"}, 2)
    assert options.server()["deadline_s"] == 3.0
    assert "deadline_s" not in deployment
    assert coerce(RayOptions, {"num_replicas": "auto"}).deployment()["num_replicas"] == "auto"
    assert "num_replicas" not in RayOptions(autoscaling_config={"min_replicas": 3}).deployment()
    assert all(each.metadata["help"] for each in fields(RayOptions))
    assert coerce(RayOptions, as_json(options)) == options


def test_canary_gets_a_fraction_of_the_replicas() -> None:
    options = coerce(RayOptions, {"canary": "10", "num_replicas": "25", "max_ongoing_requests": "7"})
    assert (options.canary, options.as_canary().num_replicas, options.as_canary().max_ongoing_requests) == (10.0, 3, 7)
    growing = RayOptions(canary=50, autoscaling_config={"min_replicas": 5}).as_canary()
    assert (growing.deployment()["num_replicas"], growing.autoscaling_config) == (3, None)
    assert replace(options, num_replicas="auto").as_canary().num_replicas == 1
    assert not [name for name in options.deployment() if name.startswith("canary")]
    for wrong in (51, -1):
        with pytest.raises(WrongUsage, match="'canary' is"):
            RayOptions(canary=wrong)
    for name in ("canary_s", "canary_requests", "canary_slower", "canary_timeout_s"):
        with pytest.raises(WrongUsage, match=f"'{name}' is 0"):
            coerce(RayOptions, {name: "0"})
    with pytest.raises(WrongUsage, match="'canary_errors' is 101"):
        RayOptions(canary_errors=101)


def test_version_changes_only_with_what_a_replica_depends_on() -> None:
    def version_with(options: RayOptions, model: ModelSpec = MODEL, key: str = "1") -> str:
        shipment = {"bundle": {"key": key, "parts": 1}}
        return version_of({"model": model.as_dict(), "options": as_json(options), "shipment": shipment})

    version = version_with(RayOptions())
    assert version_with(RayOptions(num_replicas=3, canary=5, max_queued_requests=9, route_prefix="/x")) == version
    assert version_with(RayOptions(), replace(MODEL, folder=Path("/elsewhere"), source="another")) == version
    others = [
        version_with(RayOptions(deadline_s=1)),
        version_with(RayOptions(), replace(MODEL, digest="sha256:" + "b" * 64)),
        version_with(RayOptions(), replace(MODEL, trust=True)),
        version_with(RayOptions(), key="2"),
    ]
    assert len({version, *others}) == 5


def test_every_option_is_known_to_ray_or_likewise() -> None:
    from ray import serve

    known = set(signature(serve.deployment).parameters)
    names = {each.name for each in fields(RayOptions)}
    assert names - SERVER - OWN <= known
    assert {each.name for each in fields(ServerOptions)} >= SERVER


@pytest.mark.parametrize(
    "wrong", [{"num_replicas": "many"}, {"num_replicas": 0}, {"route_prefix": "x"}, {"timeout_s": 0}]
)
def test_invalid_options_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongUsage):
        RayOptions(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "cause", "remedy"), WRONG)
def test_options_that_ray_rejects_or_ignores_are_wrong_usage(options: dict[str, Any], cause: str, remedy: str) -> None:
    with pytest.raises(WrongUsage, match=cause) as raised:
        require_valid(coerce(RayOptions, options))
    assert remedy in raised.value.remedy
    assert "pydantic" not in raised.value.cause


def test_valid_runtime_environments_are_accepted() -> None:
    for environment in (
        {"working_dir": "local:///opt/files", "py_modules": ["https://host/a.zip"], "env_vars": {"A": "b"}},
        {"pip": ["a==1"], "config": {"setup_timeout_seconds": 9}},
        {"conda": "a-name"},
        {"conda": {"dependencies": ["a"]}, "excludes": ["x"]},
    ):
        require_valid(RayOptions(ray_actor_options={"num_cpus": None, "runtime_env": environment}))


def test_plans() -> None:
    target = RayTarget("ray")
    ship, run = target.plan("create", "one", MODEL, RayOptions(num_replicas=2), None)
    assert (ship.action, run.action, run.params["create"], run.params["previous"]) == ("ship", "run", True, None)
    assert run.about == "run 2 replicas with 1 CPU each at /one and wait until all are ready"
    assert run.params["shipment"] == output_of("ship", "shipment")
    _, again = target.plan("update", "one", MODEL, RayOptions(), RECEIPT)
    assert again.params["previous"]["shipment"] == {"bundle": {}}
    _, trying = target.plan("update", "one", MODEL, RayOptions(canary=10), RECEIPT)
    assert trying.about.startswith("try it on 10 % of the requests, then run 1 replica")
    (stop,) = target.plan("delete", "one", None, RayOptions(), RECEIPT)
    assert stop.params == {"name": "one"}
    for name in ("a/b", "", "-a", "a b", "ü"):
        with pytest.raises(WrongUsage, match="is not a valid deployment name"):
            target.plan("create", name, MODEL, RayOptions(), None)


@given(st.integers(1, 9), st.floats(0.1, 4))
def test_capacity_depends_on_free_resources_and_the_largest_node(replicas: int, cpus: float) -> None:
    options = RayOptions(num_replicas=replicas, ray_actor_options={"num_cpus": cpus})
    fits = cpus <= 2.0 and replicas * cpus <= 4.0 + 1e-6
    assert [each.fatal for each in capacity_findings(MODEL, options, CLUSTER)] == ([] if fits else [True])


ONE = {"replicas": 1, "model": MODEL.as_dict(), "options": as_json(RayOptions())}
OTHER = replace(MODEL, digest="sha256:" + "b" * 64)
THIN = {"num_cpus": 0.5}


@pytest.mark.parametrize(
    ("options", "model", "running", "cpus"),
    [
        ({"num_replicas": 2}, MODEL, None, 2.0),
        ({"num_replicas": 2}, MODEL, ONE, 1.0),
        ({"num_replicas": 2, "max_queued_requests": 9}, MODEL, {**ONE, "replicas": 2}, 0.0),
        ({"num_replicas": 1}, MODEL, {**ONE, "replicas": 4}, 0.0),
        ({"num_replicas": "auto"}, MODEL, {**ONE, "replicas": 4}, 0.0),
        ({"num_replicas": 1}, OTHER, ONE, 1.0),  # one more, until the old one stops
        ({"num_replicas": 4}, OTHER, {**ONE, "replicas": 4}, 1.0),
        ({"num_replicas": 4}, OTHER, ONE, 4.0),
        ({"num_replicas": 4, "max_surge_percent": 0}, OTHER, ONE, 3.0),
        ({"num_replicas": 1, "max_surge_percent": 0}, OTHER, ONE, 0.0),
        ({"num_replicas": 4, "canary": 50}, OTHER, {**ONE, "replicas": 4}, 2.0),
        ({"autoscaling_config": {"min_replicas": 1}}, OTHER, {**ONE, "replicas": 8}, 2.0),
        ({"num_replicas": 1, "ray_actor_options": THIN}, MODEL, ONE, 0.5),
        ({"num_replicas": 1, "deadline_s": 3}, MODEL, ONE, 1.0),
        ({"num_replicas": 2}, MODEL, {**ONE, "options": as_json(RayOptions(ray_actor_options=THIN))}, 2.0),
    ],
)
def test_what_keeps_running_is_not_needed_twice(
    options: dict[str, Any], model: ModelSpec, running: dict[str, Any] | None, cpus: float
) -> None:
    assert more_needed("CPU", model, RayOptions(**options), running) == cpus


def test_update_on_a_full_cluster_names_its_options() -> None:
    full = {**CLUSTER, "free": {}, "running": ONE}
    (finding,) = capacity_findings(OTHER, RayOptions(), full)
    assert "1 replica with 1 CPU each need 1 CPU more than now, and 0 are free" in finding.cause
    assert "-C max_surge_percent=0" in finding.remedy
    (more,) = capacity_findings(MODEL, RayOptions(num_replicas=2), full)
    assert "max_surge_percent" not in more.remedy
    assert capacity_findings(OTHER, RayOptions(max_surge_percent=0), full) == []


@pytest.mark.parametrize(
    ("actor", "missing"),
    [
        ({"num_gpus": 1}, "1 GPU, and no node of the Ray cluster has any"),
        ({"memory": 8e9}, "8e+09 memory, and no node of the Ray cluster has more than 4e+09"),
        ({"accelerator_type": "H200"}, "0.001 accelerator_type:H200, and no node of the Ray cluster has any"),
        ({"resources": {"lamp": 1}}, "1 lamp, and no node of the Ray cluster has any"),
    ],
)
def test_every_kind_of_resource_is_checked(actor: dict[str, Any], missing: str) -> None:
    nodes = {"CPU": 2.0, "memory": 4e9}
    (cause,) = causes({**CLUSTER, "free": nodes, "largest": nodes}, ray_actor_options=actor)
    assert missing in cause


def cluster_info(**changed: Any) -> dict[str, Any]:
    """The result of the action `look` for a cluster with free resources and HAProxy."""
    http = {"host": "0.0.0.0", "port": 8000, "scheme": "http", "root_path": ""}
    ingress = {"haproxy": True, "installed": True, "nodes": 1}
    return {**CLUSTER, "largest": {"CPU": 4.0}, "serve": http, "ingress": ingress, **changed}


def causes(cluster: dict[str, Any], **options: Any) -> list[str]:
    return [each.cause for each in capacity_findings(MODEL, RayOptions(**options), cluster)]


def test_haproxy_is_suggested_if_installed() -> None:
    slow = {"haproxy": False, "installed": True, "nodes": 1}
    (offer,) = capacity_findings(MODEL, RayOptions(), cluster_info(ingress=slow))
    assert "Python proxy" in offer.cause
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in offer.remedy
    assert not offer.fatal
    assert causes(cluster_info(ingress={**slow, "installed": False})) == []
    (missing,) = causes(cluster_info(ingress=slow), num_replicas=9)  # missing resources are reported first
    assert "9 CPU" in missing


def test_port_in_use_is_reported_before_serve_starts() -> None:
    (taken,) = capacity_findings(MODEL, RayOptions(), cluster_info(serve=None, ingress={**PYTHON_PROXY, "taken": True}))
    assert "127.0.0.1:8000" in taken.cause
    assert taken.fatal


def test_unexpected_haproxy_addresses_are_reported() -> None:
    (open_to_all,) = causes(cluster_info())
    assert "all addresses" in open_to_all
    local = {"host": "127.0.0.1", "port": 8000}
    assert causes(cluster_info(serve=local)) == []
    (unreachable,) = causes(cluster_info(serve=local, ingress={"haproxy": True, "installed": True, "nodes": 2}))
    assert "cannot reach replicas on another" in unreachable


def test_url_of_a_deployment() -> None:
    assert url_of("auto", HTTP, "/one") == "http://127.0.0.1:8000/one"
    assert url_of("ray://head:10001", {**HTTP, "host": "0.0.0.0"}, "/one") == "http://head:8000/one"
    assert url_of("ray://head:10001", {**HTTP, "host": "10.0.0.9"}, "/one") == "http://10.0.0.9:8000/one"
    assert url_of("ray://[::1]:10001", {**HTTP, "host": "::", "scheme": "https"}, "/a") == "https://[::1]:8000/a"


async def echo(request: Request) -> JSONResponse:
    return JSONResponse([request.method, request.url.path], headers={"X-Request-Id": "from-likewise"})


async def _check_prefix(prefix: str) -> None:
    inner = Starlette(routes=[Route("/invocations", echo, methods=["POST"]), Route("/ready", echo), Route("/", echo)])
    transport = httpx.ASGITransport(ReplicaApp(inner), root_path=prefix)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/", *([""] if prefix else [])):
            posted = await client.post(prefix + path)
            got = await client.get(prefix + path, follow_redirects=True)
            assert posted.json() == ["POST", f"{prefix}/invocations"]
            assert got.json() == ["GET", f"{prefix}/"]
        ready = await client.get(f"{prefix}/ready")
        assert ready.json() == ["GET", f"{prefix}/ready"]
        assert "X-Request-Id" not in ready.headers


@pytest.mark.parametrize("prefix", ["", "/one", "/a/b"])
def test_prefix_itself_serves_requests(prefix: str) -> None:
    asyncio.run(_check_prefix(prefix))


def archive(text: bytes) -> tuple[str, bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return hashlib.sha256(stream.getvalue()).hexdigest(), stream.getvalue()


def test_archive_is_fetched_once(tmp_path: Path) -> None:
    key, data = archive(b"content")
    fetched = []

    def fetch(stream: Any) -> None:
        fetched.append(1)
        stream.write(data)

    for _ in range(2):
        assert (unpacked(tmp_path, key, fetch) / "file").read_bytes() == b"content"
    assert len(fetched) == 1


@pytest.mark.parametrize(("parts", "reason"), [([b"one", b"other"], "is corrupt"), ([b"one", None], "no longer has")])
def test_corrupt_or_missing_archive_parts_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[bytes | None], reason: str
) -> None:
    from ray.experimental import internal_kv

    key = hashlib.sha256(b"onetwo").hexdigest()
    stored = {part_name(key, number): part for number, part in enumerate(parts)}
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda name, namespace: stored[name])
    with pytest.raises(RuntimeError, match=reason):
        _unpacked(tmp_path, {"key": key, "parts": 2})
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
