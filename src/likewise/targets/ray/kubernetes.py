"""A deployment as a RayService, the Kubernetes resource of KubeRay, which runs a Serve config file."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.targets.ray.ray_options import RayOptions

NAME_CHARS = 47  # KubeRay's limit, as it appends to the name
PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}
AUTO_REPLICAS = 100  # Ray's maximum for num_replicas=auto
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_RESOURCE = re.compile(r"[A-Za-z0-9_-]+")
_POD = {"CPU": "cpu", "GPU": "nvidia.com/gpu", "memory": "memory"}


def ray_service(name: str, options: RayOptions, config: str, image: str) -> dict[str, Any]:
    """The manifest: a head without replicas, and a worker pod for each replica, and for those that an update adds.

    config: the text of the Serve config file.  Raises WrongUsage for names that KubeRay does not accept.
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS:
        raise WrongUsage(
            f"{name!r} is not a valid name of a RayService",
            remedy=f"use at most {NAME_CHARS} lower-case letters, digits and '-', starting with a letter",
        )
    count, most = options.replicas(), _most_replicas(options)
    workers = {
        "groupName": "replicas",
        "replicas": count,
        "minReplicas": count,
        "maxReplicas": most + math.ceil(most * options.max_surge_percent / 100),
        "rayStartParams": _resources_of_ray(options),
        "template": _pod("ray-worker", image, _resources_of_pod(options)),
    }
    ports = [{"name": port, "containerPort": number} for port, number in PORTS.items()]
    head = {"rayStartParams": {"num-cpus": "0"}, "template": _pod("ray-head", image, {"cpu": "1"}, ports)}
    cluster = {
        "rayVersion": need("ray", extra="ray").__version__,
        "enableInTreeAutoscaling": True,
        "headGroupSpec": head,
        "workerGroupSpecs": [workers],
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {"serveConfigV2": config, "rayClusterConfig": cluster},
    }


def _pod(name: str, image: str, resources: dict[str, str], ports: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    container = {"name": name, "image": image, "resources": {"limits": resources}}
    return {"spec": {"containers": [container if ports is None else {**container, "ports": ports}]}}


def _most_replicas(options: RayOptions) -> int:
    automatic = AUTO_REPLICAS if options.num_replicas == "auto" else 1
    most = (options.autoscaling_config or {}).get("max_replicas", automatic)
    return max(options.replicas(), int(most)) if options.scales else options.replicas()


def _resources_of_pod(options: RayOptions) -> dict[str, str]:
    """Whole CPUs, at least one, because Ray counts those; whole GPUs; bytes of memory."""
    resources = {"CPU": 1.0, **options.resources()}
    return {pod: str(math.ceil(resources[name])) for name, pod in _POD.items() if name in resources}


def _resources_of_ray(options: RayOptions) -> dict[str, str]:
    """The custom resources, which Ray does not find itself, as KubeRay expects them: JSON in quotes."""
    own = {name: math.ceil(n) for name, n in options.resources().items() if name not in _POD and ":" not in name}
    for name in own:
        if not _RESOURCE.fullmatch(name):  # KubeRay puts it into a shell command
            raise WrongUsage(
                f"{name!r} is not a valid resource on Kubernetes", remedy="use letters, digits, '_' and '-'"
            )
    return {"resources": json.dumps(json.dumps(own))} if own else {}
