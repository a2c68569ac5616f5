"""What a cluster is and has, without changing anything; runs in the agent."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from likewise.targets.ray import store

APP = "likewise-"  # before a deployment's name: nobody else's application is called so
DEPLOYMENT = "model"


def look(params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001  an action gets them
    """Free resources, nodes, Serve's HTTP options and the routes that are taken."""
    ray = importlib.import_module("ray")
    details = serve_details()
    apps = details.get("applications", {}) if details else {}
    return {
        "ray": ray.__version__,
        "free": {name: n for name, n in ray.available_resources().items() if ":" not in name},
        "largest": _largest([node["Resources"] for node in ray.nodes() if node["Alive"]]),
        "serve": None if details is None else http_options(),
        "routes": {app["route_prefix"]: name for name, app in apps.items()},
    }


def found(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, what is noted of it, URL, and since when, of each deployment of ours."""
    details = serve_details()
    apps = details.get("applications", {}) if details else {}
    ours = {name: app for name, app in sorted(apps.items()) if name.startswith(APP)}
    return [
        {
            "name": name.removeprefix(APP),
            "noted": noted,
            "url": url_of(params["address"], http_options(), app["route_prefix"]),
            "deployed_s": app["last_deployed_time_s"],
        }
        for name, app in ours.items()
        if (noted := store.noted(name)) is not None
    ]


def status(params: Mapping[str, Any]) -> dict[str, Any]:
    """Of the deployment `params["name"]`: Serve's word for it, its message, its replicas; `{"status": None}`: none."""
    app = APP + params["name"]
    details = (serve_details() or {}).get("applications", {}).get(app)
    noted = store.noted(app)
    if details is None:
        return {"status": None, "noted": noted}
    deployment = details["deployments"].get(DEPLOYMENT, {})
    replicas = [
        {"id": each["replica_id"], "state": _word(each["state"]), "node": each.get("node_ip"), "pid": each.get("pid")}
        for each in deployment.get("replicas", [])
    ]
    return {
        "status": _word(details["status"]),
        "message": "\n".join(text for text in (details.get("message"), deployment.get("message")) if text),
        "replicas": replicas,
        "target": deployment.get("target_num_replicas"),
        "noted": noted,
    }


def serve_details() -> dict[str, Any] | None:
    """All that Serve's controller tells; None where Serve does not run."""
    client = _client()
    return None if client is None else dict(client.get_serve_details())


def http_options() -> dict[str, Any]:
    """host, port, scheme and root path of the proxies."""
    config = _client().http_config
    return {
        "host": config.host,
        "port": config.port,
        "scheme": "https" if config.ssl_keyfile else "http",
        "root_path": config.root_path,
    }


def url_of(address: str, http: Mapping[str, Any], prefix: str) -> str:
    """Where a deployment answers, as seen from here: the host of `ray://HOST:PORT`, where Serve names none."""
    host = http["host"] or "127.0.0.1"
    named = urlsplit(address).hostname if "://" in address else None
    if host in ("0.0.0.0", "::", "127.0.0.1", "localhost"):  # noqa: S104  compared, not bound
        host = named or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{http['scheme']}://{host}:{http['port']}{http['root_path'].rstrip('/')}{prefix}"


def _client() -> Any:
    context = importlib.import_module("ray.serve.context")
    return context._get_global_client(raise_if_no_controller_running=False)


def _largest(nodes: list[Mapping[str, float]]) -> dict[str, float]:
    """Of each resource, the most that one node has."""
    names = {name for node in nodes for name in node if ":" not in name}
    return {name: max(node.get(name, 0.0) for node in nodes) for name in names}


def _word(state: Any) -> str:
    return str(getattr(state, "value", state))
