"""Likewise's data in the cluster's key-value store: archives by their SHA-256, and records of deployments.

The store outlives drivers, replicas and worker nodes.  Ray's own runtime environment packages are stored there too, but
Ray deletes them when their last user exits, and then a replica that was killed could not be restarted.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from likewise.bundles.cache import cache_folder
from likewise.bundles.open import open_exactly
from likewise.core.errors import DeployFailed
from likewise.core.spec import ModelSpec
from likewise.core.unpack import already_installed, local_runtime
from likewise.engine.load import allowed_engines
from likewise.shipping.payload import archive_of, environment_of
from likewise.targets.ray.replica import NAMESPACE, Shipment, part_name

PREINSTALLED = frozenset({"ray"})  # on every node, in the version of its cluster
PART_BYTES = 16 << 20  # Ray limits a message to less than 500 MB
MAX_ARCHIVE_BYTES = 4 << 30  # the store is in the head node's memory
GRACE_S = 3600.0  # an unused archive may belong to a deployment in progress
NODES_TIMEOUT_S = 120.0


def ship(params: Mapping[str, Any]) -> dict[str, Any]:
    """Store what the model `params["model"]` needs, unless it is stored already; returns `{"shipment": …}`.

    extras: of Likewise, if more than the engine's are needed.

    The shipment is what a replica unpacks; it contains the environment only if a node lacks it.  Raises MissingExtra (a
    requirement of the engine is not installed here), EngineUnavailable, CodeNotTrusted, WrongUsage (the model
    was logged with a requirement that is not only a name and versions), and what `open_bundle` raises.
    """
    model, folder = ModelSpec.from_dict(params["model"]), cache_folder("ray") / "sent"
    bundle = open_exactly(model)
    packed = environment_of(bundle, allowed_engines(bundle.manifest, model)[0], PREINSTALLED, params.get("extras", ()))
    shipment: Shipment = {**local_runtime(), "package": packed.package, "versions": packed.versions}
    shipment["bundle"] = _put_archive(archive_of(bundle, folder))
    by_value()
    everywhere = all(on_each_node(already_installed, packed.package, packed.versions, timeout_s=NODES_TIMEOUT_S))
    shipment["environment"] = None if everywhere else _put_archive(packed.archive(folder))
    return {"shipment": shipment}


def on_each_node(work: Callable[..., Any], *arguments: Any, timeout_s: float) -> list[Any]:
    """The results of `work`, executed in a worker on each node that is alive."""
    ray = importlib.import_module("ray")
    by_node = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    calls = [remote.options(scheduling_strategy=by_node(node, soft=False)).remote(*arguments) for node in nodes]
    return list(ray.get(calls, timeout=timeout_s))


def by_value() -> None:
    """Make Ray send the modules that run before Likewise is installed on a worker by value, not by name."""
    pickle = importlib.import_module("ray.cloudpickle")
    for name in ("likewise.core.cores", "likewise.core.unpack", "likewise.targets.ray.replica"):
        pickle.register_pickle_by_value(importlib.import_module(name))


def put(name: str, record: Mapping[str, Any]) -> None:
    """Store a record.

    `app/NAME`: the deployment; `canary/NAME`: its canary, with the latest figures; `job/ID`: a job that runs at `at`.
    """
    _kv()._internal_kv_put(name, json.dumps(record), True, namespace=NAMESPACE)


def get(name: str) -> dict[str, Any] | None:
    """The record that `put` has stored; None if there is none."""
    data = _kv()._internal_kv_get(name, namespace=NAMESPACE)
    return None if data is None else dict(json.loads(data))


def names(kind: str) -> list[str]:
    """The names of the stored records or archives below `kind`, such as `app/`."""
    return [key.decode().removeprefix(kind) for key in _kv()._internal_kv_list(kind, namespace=NAMESPACE)]


def drop(name: str) -> None:
    """Delete a record."""
    _kv()._internal_kv_del(name, namespace=NAMESPACE)


def deployment_record(app: str) -> dict[str, Any] | None:
    """The record of the application `app`, with that of its canary as `canary` while one exists."""
    record = get(f"app/{app}")
    canary = None if record is None else get(f"canary/{app}")
    return record if record is None or canary is None else {**record, "canary": canary}


def collect_garbage(params: Mapping[str, Any] | None = None) -> None:  # noqa: ARG001  passed to every action
    """Delete archives older than GRACE_S that no deployment, canary or previous version of a deployment needs."""
    used = set(_used())
    for key in names("meta/"):
        meta = get(f"meta/{key}")
        if key not in used and (meta is None or time.time() - meta["at"] > GRACE_S):
            drop(f"meta/{key}")
            _kv()._internal_kv_del(f"archive/{key}/", del_by_prefix=True, namespace=NAMESPACE)


def _used() -> Iterator[str]:
    for key in (kind + name for kind in ("app/", "canary/", "job/") for name in names(kind)):
        record = get(key) or {}
        if key.startswith("job/") and time.time() - record.get("at", 0) > GRACE_S:  # its driver was killed
            drop(key)
            continue
        for deployed in (record, record.get("before") or {}):
            shipment = deployed.get("shipment") or {}
            yield from (shipment[kind]["key"] for kind in ("bundle", "environment") if shipment.get(kind))


def _put_archive(path: Path) -> dict[str, Any]:
    """Store the archive, unless it is stored already; returns its `{"key", "parts"}`."""
    size = path.stat().st_size
    if size > MAX_ARCHIVE_BYTES:
        raise DeployFailed(
            f"{path.name} has {size} bytes, too many for the memory of Ray's head node (limit {MAX_ARCHIVE_BYTES})",
            remedy="install Likewise and the model's requirements on the nodes, or deploy a smaller model",
        )
    with path.open("rb") as stream:
        key = hashlib.file_digest(stream, "sha256").hexdigest()
        parts = -(-size // PART_BYTES)
        if get(f"meta/{key}") is None:
            stream.seek(0)
            for number in range(parts):
                _kv()._internal_kv_put(part_name(key, number), stream.read(PART_BYTES), True, namespace=NAMESPACE)
    put(f"meta/{key}", {"parts": parts, "bytes": size, "at": time.time()})  # last: it marks the archive as complete
    return {"key": key, "parts": parts}


def _kv() -> Any:
    return importlib.import_module("ray.experimental.internal_kv")
