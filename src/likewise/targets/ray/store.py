"""What we keep in the cluster's key-value store: archives by their sha256, and what is deployed.

It outlives drivers, replicas and worker nodes, as Ray's own packages of a runtime environment do, which lie there too;
those Ray drops when their last user ends, and then a replica that was killed could not come back.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from likewise.bundles.open import open_bundle
from likewise.core.errors import DeployFailed
from likewise.core.spec import ModelSpec
from likewise.engine.rates import cache_home
from likewise.shipping.payload import archive_of, environment_of, trusted_engine
from likewise.shipping.unpack import at_home, here
from likewise.targets.ray.replica import SPACE, Shipment, part_name

THEIRS = frozenset({"ray"})  # every node has it, in the version of its cluster
PART = 16 << 20  # bytes: a message of Ray's holds less than 500 MB
LARGEST = 4 << 30  # bytes of one archive; they lie in the head node's memory
FRESH_S = 3600.0  # an archive that nobody uses yet may belong to a deployment on its way
ASK_S = 120.0


def ship(params: Mapping[str, Any]) -> dict[str, Any]:
    """Put there what the model `params["model"]` needs and is not there; `{"shipment": …}`, for a replica.

    The environment is packed only where a node lacks it.  Raises MissingExtra (what the engine needs is not installed
    here), EngineUnavailable, CodeNotTrusted, and what `open_bundle` raises.
    """
    model, folder = ModelSpec.from_dict(params["model"]), cache_home() / "ray" / "sent"
    bundle = open_bundle(model.folder)
    made = environment_of(bundle, trusted_engine(bundle, model), THEIRS)
    shipment: Shipment = {**here(), "package": made.package, "versions": made.versions}
    shipment["bundle"] = _put_archive(archive_of(bundle, folder))
    by_value()
    everywhere = all(on_each_node(at_home, made.package, made.versions, timeout_s=ASK_S))
    shipment["environment"] = None if everywhere else _put_archive(made.archive(folder))
    return {"shipment": shipment}


def on_each_node(work: Callable[..., Any], *arguments: Any, timeout_s: float) -> list[Any]:
    """What it answers in a worker of each node."""
    ray = importlib.import_module("ray")
    by_node = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [remote.options(scheduling_strategy=by_node(node, soft=False)).remote(*arguments) for node in nodes]
    return list(ray.get(asked, timeout=timeout_s))


def by_value() -> None:
    """Send the modules that a worker runs first with what is sent, and not by name."""
    pickle = importlib.import_module("ray.cloudpickle")
    for name in ("likewise.shipping.unpack", "likewise.targets.ray.replica"):
        pickle.register_pickle_by_value(importlib.import_module(name))


def put(name: str, said: Mapping[str, Any]) -> None:
    """Remember it. `app/NAME`: what is deployed; `canary/NAME`: what runs beside it, and what was seen of that."""
    _kv()._internal_kv_put(name, json.dumps(said), True, namespace=SPACE)


def get(name: str) -> dict[str, Any] | None:
    """What `put` was told."""
    found = _kv()._internal_kv_get(name, namespace=SPACE)
    return None if found is None else dict(json.loads(found))


def drop(name: str) -> None:
    """Forget it."""
    _kv()._internal_kv_del(name, namespace=SPACE)


def noted(app: str) -> dict[str, Any] | None:
    """What is deployed as the application `app`; `canary`: what runs beside it, while it does."""
    found = get(f"app/{app}")
    running = None if found is None else get(f"canary/{app}")
    return found if found is None or running is None else {**found, "canary": running}


def collect(params: Mapping[str, Any] | None = None) -> None:  # noqa: ARG001  an action gets them
    """Drop archives that are not fresh, and that no deployment, as it is or was before its update, needs."""
    used = set(_used())
    for name in _kv()._internal_kv_list("meta/", namespace=SPACE):
        key = name.decode().partition("/")[2]
        meta = get(f"meta/{key}")
        if key not in used and (meta is None or time.time() - meta["at"] > FRESH_S):
            drop(f"meta/{key}")
            _kv()._internal_kv_del(f"archive/{key}/", del_by_prefix=True, namespace=SPACE)


def _used() -> Iterator[str]:
    kept = [name.decode() for kind in ("app/", "canary/") for name in _kv()._internal_kv_list(kind, namespace=SPACE)]
    for name in kept:
        said = get(name) or {}
        for deployed in (said, said.get("before") or {}):
            shipment = deployed.get("shipment") or {}
            yield from (shipment[kind]["key"] for kind in ("bundle", "environment") if shipment.get(kind))


def _put_archive(path: Path) -> dict[str, Any]:
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
        if get(f"meta/{key}") is None:
            stream.seek(0)
            for number in range(parts):
                _kv()._internal_kv_put(part_name(key, number), stream.read(PART), True, namespace=SPACE)
    put(f"meta/{key}", {"parts": parts, "bytes": size, "at": time.time()})  # last: now it is whole
    return {"key": key, "parts": parts}


def _kv() -> Any:
    return importlib.import_module("ray.experimental.internal_kv")
