"""The Serve application that a config file names: `serve deploy` builds it on a node, where Likewise is installed."""

from __future__ import annotations

import importlib
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.s3 import SCHEME, Bucket, s3_errors
from likewise.core.errors import InputNotFound, WrongUsage
from likewise.shipping.unpack import cache_folder, unpacked
from likewise.targets.ray.inspection import DEPLOYMENT
from likewise.targets.ray.replica import Replica

ARGUMENTS = frozenset({"bundle", "key", "model", "server", "deployment"})


class StoredReplica(Replica):
    """A replica that reads its bundle from where every node can: a folder, or `s3://BUCKET/PREFIX`.

    key: digest of the bundle's manifest. model: as `ModelSpec.portable` gives it. server: fields of ServerOptions.
    Raises what `fetched` does, and what `ReplicaService` raises: BundleTampered for another bundle.
    """

    def __init__(self, bundle: str, key: str, model: dict[str, Any], server: dict[str, Any]) -> None:
        module = importlib.import_module("likewise.targets.ray.service")
        self._service = module.ReplicaService(fetched(bundle, key), model, server)


def application(args: Mapping[str, Any]) -> Any:
    """The bound deployment, for Serve's `import_path`; args: those of `StoredReplica`, and what its options lack.

    Raises WrongUsage for others.
    """
    if args.keys() != ARGUMENTS:
        raise WrongUsage(
            f"the application takes {', '.join(sorted(ARGUMENTS))}, and not {', '.join(sorted(args)) or 'nothing'}",
            remedy="make the file again: likewise deploy MODEL --to ray --name NAME --plan -o FILE",
        )
    serve = importlib.import_module("ray.serve")
    made = serve.deployment(name=DEPLOYMENT, **args["deployment"])(serve.ingress()(StoredReplica))
    return made.bind(args["bundle"], args["key"], args["model"], args["server"])


def fetched(bundle: str, key: str) -> Path:
    """The bundle's folder on this node: where it is, or in the node's cache, once a node; it is not checked yet.

    Raises InputNotFound where there is nothing.
    """
    if bundle.startswith(SCHEME):
        return unpacked(cache_folder("ray"), key, partial(_fetch, bundle))
    if not Path(bundle).is_dir():
        raise InputNotFound(
            f"this node has no folder {bundle}", remedy="put the bundle where all nodes see it, or say --bundle-at"
        )
    return Path(bundle)


def _fetch(address: str, stream: BinaryIO) -> None:
    """Every object below `address`, as a tar."""
    bucket, prefix = Bucket.of(address.rstrip("/") + "/")
    keys = bucket.list(prefix)
    if not keys:
        raise InputNotFound(f"there is nothing below {address}", remedy="copy the bundle's folder there")
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for key in keys:
            file = bucket.open(key, key)
            member = tarfile.TarInfo(key.removeprefix(prefix))
            member.size = file.size
            with s3_errors(file.name), file.open() as source:
                tar.addfile(member, source)
