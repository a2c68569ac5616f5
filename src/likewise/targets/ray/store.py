"""What we keep in the cluster's key-value store: archives by their sha256, and what is deployed.

It outlives drivers, replicas and worker nodes, as Ray's own packages of a runtime environment do, which lie there too;
those Ray drops when their last user ends, and then a replica that was killed could not come back.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import DeployFailed
from likewise.core.spec import ModelSpec
from likewise.shipping.environment import Environment
from likewise.shipping.unpack import at_home, here
from likewise.targets.ray.replica import SPACE, Shipment, part_name
from likewise.targets.ray.shipping import cargo, shipments

PART = 16 << 20  # bytes: a message of Ray's holds less than 500 MB
LARGEST = 4 << 30  # bytes of one archive; they lie in the head node's memory
FRESH_S = 3600.0  # an archive that nobody uses yet may belong to a deployment on its way
ASK_S = 120.0


def ship(params: Mapping[str, Any]) -> dict[str, Any]:
    """Put there what the model `params["model"]` needs and is not there; `{"shipment": …}`, for a replica."""
    load = cargo(ModelSpec.from_dict(params["model"]))
    shipment: Shipment = {**here(), "package": load.environment.package, "versions": load.environment.versions}
    shipment["bundle"] = _put(load.bundle)
    lacking = nodes_without(load.environment)
    shipment["environment"] = _put(load.environment.archive(shipments())) if lacking else None
    return {"shipment": shipment}


def unship(params: Mapping[str, Any]) -> None:  # noqa: ARG001  an action gets them
    """Drop what no deployment needs."""
    collect()


def nodes_without(environment: Environment) -> list[str]:
    """The nodes whose Python lacks the environment."""
    ray = importlib.import_module("ray")
    by_node = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    by_value()
    look = ray.remote(num_cpus=0, max_retries=0)(at_home)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [
        look.options(scheduling_strategy=by_node(node, soft=False)).remote(environment.package, environment.versions)
        for node in nodes
    ]
    told = ray.get(asked, timeout=ASK_S)
    return [node for node, has_it in zip(nodes, told, strict=True) if not has_it]


def by_value() -> None:
    """Send the modules that a worker runs first with what is sent, and not by name."""
    pickle = importlib.import_module("ray.cloudpickle")
    for name in ("likewise.shipping.unpack", "likewise.targets.ray.replica"):
        pickle.register_pickle_by_value(importlib.import_module(name))


def note(app: str, said: Mapping[str, Any]) -> None:
    """Remember what is deployed as the application `app`."""
    _kv()._internal_kv_put(f"app/{app}", json.dumps(said), True, namespace=SPACE)


def noted(app: str) -> dict[str, Any] | None:
    """What `note` was told; `canary`: what `note_canary` was, while one is there."""
    found = _read(f"app/{app}")
    running = None if found is None else canary(app)
    return found if found is None or running is None else {**found, "canary": running}


def forget(app: str) -> None:
    """Nothing is deployed as `app`."""
    _kv()._internal_kv_del(f"app/{app}", namespace=SPACE)


def note_canary(app: str, said: Mapping[str, Any]) -> None:
    """Remember the canary that runs beside `app`, and what was seen of it."""
    _kv()._internal_kv_put(f"canary/{app}", json.dumps(said), True, namespace=SPACE)


def canary(app: str) -> dict[str, Any] | None:
    """What `note_canary` was told."""
    return _read(f"canary/{app}")


def forget_canary(app: str) -> None:
    """None runs beside `app`."""
    _kv()._internal_kv_del(f"canary/{app}", namespace=SPACE)


def collect() -> None:
    """Drop archives that are not fresh, and that no deployment, as it is or was before its update, needs."""
    used = set(_used())
    for name in _kv()._internal_kv_list("meta/", namespace=SPACE):
        key = name.decode().partition("/")[2]
        meta = _meta(key)
        if key not in used and (meta is None or time.time() - meta["at"] > FRESH_S):
            _kv()._internal_kv_del(f"meta/{key}", namespace=SPACE)
            _kv()._internal_kv_del(f"archive/{key}/", del_by_prefix=True, namespace=SPACE)


def _used() -> Iterator[str]:
    kept = [name.decode() for kind in ("app/", "canary/") for name in _kv()._internal_kv_list(kind, namespace=SPACE)]
    for name in kept:
        said = _read(name) or {}
        for deployed in (said, said.get("before") or {}):
            shipment = deployed.get("shipment") or {}
            yield from (shipment[kind]["key"] for kind in ("bundle", "environment") if shipment.get(kind))


def _put(path: Path) -> dict[str, Any]:
    """`{"key", "parts"}` of the archive, which is there when this returns; only what is missing is sent."""
    size = path.stat().st_size
    if size > LARGEST:
        raise DeployFailed(
            f"{path.name} has {size} bytes, and Ray's head node keeps it in memory",
            remedy="install Likewise and the model's requirements on the nodes, or deploy a smaller model",
        )
    with path.open("rb") as stream:
        key = hashlib.file_digest(stream, "sha256").hexdigest()
        parts = -(-size // PART)
        if _meta(key) is None:
            stream.seek(0)
            for number in range(parts):
                _kv()._internal_kv_put(part_name(key, number), stream.read(PART), True, namespace=SPACE)
    meta = json.dumps({"parts": parts, "bytes": size, "at": time.time()})  # last: now it is whole
    _kv()._internal_kv_put(f"meta/{key}", meta, True, namespace=SPACE)
    return {"key": key, "parts": parts}


def _meta(key: str) -> dict[str, Any] | None:
    return _read(f"meta/{key}")


def _read(name: str) -> dict[str, Any] | None:
    found = _kv()._internal_kv_get(name, namespace=SPACE)
    return None if found is None else dict(json.loads(found))


def _kv() -> Any:
    return importlib.import_module("ray.experimental.internal_kv")
