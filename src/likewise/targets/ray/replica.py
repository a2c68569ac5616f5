"""What runs first in a replica, where nothing of Likewise may be installed.

Sent by value, together with `likewise.shipping.unpack`: it imports the standard library and `ray`, which is there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from likewise.shipping.unpack import at_home, cache_folder, make_importable, require_like, unpacked

SPACE = "likewise"  # in the cluster's key-value store

# A plain dict, as a class of ours could not be unpickled before the environment is there:
# python, platform; bundle, environment: {"key": sha256 of the archive, "parts": how many}, the latter None where every
# node had it; package, versions: as `at_home` takes them
Shipment = dict[str, Any]


def arrive(shipment: Shipment) -> Path:
    """Make Likewise importable, and return the folder of the bundle; both are unpacked once a node.

    Raises RuntimeError where this Python or platform is not the one that the environment was made on.
    """
    require_like(shipment, "node", "deploy from a machine like the cluster's nodes")
    cache = cache_folder("ray")
    if shipment["environment"] is None:
        if importlib.util.find_spec("likewise") is None:
            raise RuntimeError("this node lacks Likewise, which all nodes had at the deployment; deploy again")
    elif not at_home(shipment["package"], shipment["versions"]):
        make_importable(str(_unpacked(cache, shipment["environment"])))
    return _unpacked(cache, shipment["bundle"])


def part_name(key: str, number: int) -> str:
    """Of a part of an archive in the cluster's key-value store."""
    return f"archive/{key}/{number:05d}"


def _unpacked(cache: Path, archive: dict[str, Any]) -> Path:
    return unpacked(cache, archive["key"], partial(_fetch, archive))


def _fetch(archive: dict[str, Any], stream: BinaryIO) -> None:
    kv, digest = importlib.import_module("ray.experimental.internal_kv"), hashlib.sha256()
    for number in range(archive["parts"]):
        part = kv._internal_kv_get(part_name(archive["key"], number), namespace=SPACE)
        if part is None:
            raise RuntimeError(f"the cluster does not hold the archive {archive['key']} any more; deploy it again")
        digest.update(part)
        stream.write(part)
    if digest.hexdigest() != archive["key"]:
        raise RuntimeError(f"the archive {archive['key']} arrived with other bytes than were sent")


class Replica:
    """One replica: our server, with engine and data plane, as the ASGI app that Serve hands requests to.

    model: as `ModelSpec.portable` gives it. server: fields of ServerOptions.
    """

    def __init__(self, shipment: Shipment, model: dict[str, Any], server: dict[str, Any]) -> None:
        folder = arrive(shipment)
        module = importlib.import_module("likewise.targets.ray.service")  # only now is there one
        self._service = module.ReplicaService(folder, model, server)

    def __serve_build_asgi_app__(self) -> Any:
        return self._service.app

    async def check_health(self) -> None:
        """Serve calls this before the replica gets its first request, and then again and again."""
        await self._service.check()

    async def watch(self, told: dict[str, Any]) -> Any:
        """While a canary of another version runs: see `ReplicaService`."""
        return await self._service.watch(told)

    async def unwatch(self, run: str) -> Any:
        """The canary's end."""
        return await self._service.unwatch(run)

    async def answer(self, request: dict[str, Any]) -> Any:
        """As a canary, a request that another version's replica was sent."""
        return await self._service.answer(request)


class Relay:
    """An actor that calls all replicas of a deployment: a driver outside the cluster cannot.

    `broadcast` of Serve's handle needs the replicas' own network.
    """

    def __init__(self, deployment: str, app: str) -> None:
        self._handle = importlib.import_module("ray.serve").get_deployment_handle(deployment, app)

    def tell(self, method: str, argument: Any, timeout_s: float) -> list[Any]:
        """What each replica answers; those that fail to are left out. Raises where there is none, or all are silent."""
        answers = self._handle.broadcast(method, argument).results(timeout_s=timeout_s, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, dict)]
