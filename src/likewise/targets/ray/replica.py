"""The first code that runs in a replica or a worker, where Likewise may not be installed.

Pickled by value together with `likewise.core.cores` and `likewise.core.unpack`: imports only the standard library, and
`ray`, which every node has.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from likewise.core.cores import thread_environment, usable_threads
from likewise.core.unpack import already_installed, cache_folder, make_importable, require_runtime, unpacked

NAMESPACE = "likewise"  # in the cluster's key-value store

# A plain dict, because a class of Likewise could not be unpickled before the environment is unpacked:
# python, platform: of the deploying machine; bundle, environment: {"key": sha256 of the archive, "parts": number of
# parts}, or None for an environment that every node had already; package, versions: arguments of `already_installed`
Shipment = dict[str, Any]


def install_shipment(shipment: Shipment) -> Path:
    """Make Likewise importable, and return the folder of the bundle; both are unpacked once per node.

    Raises RuntimeError if this Python or platform differs from the one that the environment was packed on.
    """
    remedy = "use a machine with the Python version and platform of the cluster's nodes"
    require_runtime(shipment, "node", remedy)
    cache = cache_folder("ray")
    if shipment["environment"] is None:
        if importlib.util.find_spec("likewise") is None:
            raise RuntimeError("Likewise is missing on this node; all nodes had it at first; run the command again")
    elif not already_installed(shipment["package"], shipment["versions"]):
        make_importable(str(_unpacked(cache, shipment["environment"])))
    return _unpacked(cache, shipment["bundle"])


def part_name(key: str, number: int) -> str:
    """The key of a part of an archive in the cluster's key-value store."""
    return f"archive/{key}/{number:05d}"


def _unpacked(cache: Path, archive: dict[str, Any]) -> Path:
    return unpacked(cache, archive["key"], partial(_fetch, archive))


def _fetch(archive: dict[str, Any], stream: BinaryIO) -> None:
    kv, digest = importlib.import_module("ray.experimental.internal_kv"), hashlib.sha256()
    for number in range(archive["parts"]):
        part = kv._internal_kv_get(part_name(archive["key"], number), namespace=NAMESPACE)
        if part is None:
            raise RuntimeError(f"the cluster's store no longer has the archive {archive['key']}; run the command again")
        digest.update(part)
        stream.write(part)
    if digest.hexdigest() != archive["key"]:
        raise RuntimeError(
            f"the archive {archive['key']} is corrupt: its SHA-256 does not match; run the command again"
        )


class Replica:
    """One replica: Likewise's server, with engine and data plane, as the ASGI app to which Serve passes requests.

    model: a dict from `ModelSpec.portable`. server: fields of ServerOptions.
    """

    def __init__(self, shipment: Shipment, model: dict[str, Any], server: dict[str, Any]) -> None:
        folder = install_shipment(shipment)
        module = importlib.import_module("likewise.targets.ray.service")  # importable only after the installation
        self._service = module.ReplicaService(folder, model, server)

    def __serve_build_asgi_app__(self) -> Any:
        return self._service.app

    async def check_health(self) -> None:
        """Called by Serve before the replica gets its first request, and periodically afterwards."""
        await self._service.check()

    async def watch(self, request: dict[str, Any]) -> Any:
        """Start or renew the split of requests with a canary: see `ReplicaService.watch`."""
        return await self._service.watch(request)

    async def metrics(self, _: None) -> Any:
        """The replica's metrics page, under `page`."""
        return self._service.metrics()

    async def unwatch(self, run: str) -> Any:
        """End the split of requests with a canary."""
        return await self._service.unwatch(run)

    async def answer(self, request: dict[str, Any]) -> Any:
        """As a canary, the response to a request that a replica of the old version forwarded."""
        return await self._service.answer(request)


class BatchWorker:
    """An actor that runs the tasks of a job one after the other.  model: a dict from `ModelSpec.portable`."""

    def __init__(self, shipment: Shipment, model: dict[str, Any]) -> None:
        folder = install_shipment(shipment)
        os.environ.update(thread_environment(os.environ, usable_threads()))
        self._tasks = importlib.import_module("likewise.targets.ray.tasks").Tasks(folder, model)

    def ready(self) -> dict[str, Any]:
        """Returns once the actor is ready for tasks."""
        return {}

    def run(self, task: bytes) -> Any:
        """The result of a pickled task; see `Tasks`."""
        return self._tasks.run(task)


class Relay:
    """An actor that calls all replicas of a deployment, which a driver outside the cluster cannot do.

    `broadcast` of Serve's handle needs access to the replicas' network.
    """

    def __init__(self, deployment: str, app: str) -> None:
        self._handle = importlib.import_module("ray.serve").get_deployment_handle(deployment, app)

    def broadcast(self, method: str, argument: Any, timeout_s: float) -> list[Any]:
        """The responses of the replicas, without exceptions. Raises if there is no replica, or none responds."""
        responses = self._handle.broadcast(method, argument).results(timeout_s=timeout_s, return_exceptions=True)
        return [response for response in responses if isinstance(response, dict)]
