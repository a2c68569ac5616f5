"""The Serve application of a config file: `serve deploy` builds it on a node where Likewise is installed."""

from __future__ import annotations

import importlib
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.s3 import SCHEME, Bucket, s3_errors
from likewise.core.errors import InputNotFound, WrongUsage
from likewise.core.unpack import cache_folder, unpacked
from likewise.targets.ray.inspection import DEPLOYMENT
from likewise.targets.ray.replica import Replica

ARGUMENTS = frozenset({"bundle", "key", "model", "server", "deployment"})


class StoredReplica(Replica):
    """A replica that reads its bundle from a folder that every node shares, or from `s3://BUCKET/PREFIX`.

    key: the build digest, without its prefix. model: a dict from `ModelSpec.portable`. server: fields of ServerOptions.
    Raises what `bundle_folder` raises, and what `ReplicaService` raises: BundleTampered for a different bundle.
    """

    def __init__(self, bundle: str, key: str, model: dict[str, Any], server: dict[str, Any]) -> None:
        module = importlib.import_module("likewise.targets.ray.service")
        self._service = module.ReplicaService(bundle_folder(bundle, key), model, server)


def application(args: Mapping[str, Any]) -> Any:
    """The bound deployment, for Serve's `import_path`.

    args: the arguments of `StoredReplica`, and `deployment`: options of `serve.deployment` that a config file does not
    support.  Raises WrongUsage if other arguments are passed.
    """
    if args.keys() != ARGUMENTS:
        raise WrongUsage(
            f"the application takes {', '.join(sorted(ARGUMENTS))}, but got {', '.join(sorted(args)) or 'nothing'}",
            remedy="generate the file again: likewise deploy MODEL --to ray --name NAME --plan -o FILE",
        )
    serve = importlib.import_module("ray.serve")
    deployment = serve.deployment(name=DEPLOYMENT, **args["deployment"])(serve.ingress()(StoredReplica))
    return deployment.bind(args["bundle"], args["key"], args["model"], args["server"])


def bundle_folder(bundle: str, key: str) -> Path:
    """The bundle's folder on this node, or in the node's cache if it is in S3; its contents are not verified yet.

    Raises InputNotFound if there is no bundle.
    """
    if bundle.startswith(SCHEME):
        return unpacked(cache_folder("ray"), key, partial(_fetch, bundle))
    if not Path(bundle).is_dir():
        raise InputNotFound(
            f"this node has no folder {bundle}",
            remedy="put the bundle in a folder that all nodes share, or use --bundle-at",
        )
    return Path(bundle)


def _fetch(address: str, stream: BinaryIO) -> None:
    """Write every object below `address` to `stream` as a tar."""
    bucket, prefix = Bucket.of(address.rstrip("/") + "/")
    keys = bucket.list(prefix)
    if not keys:
        raise InputNotFound(f"there are no objects below {address}", remedy="copy the bundle's folder there")
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for key in keys:
            file = bucket.open(key, key)
            member = tarfile.TarInfo(key.removeprefix(prefix))
            member.size = file.size
            with s3_errors(file.name), file.open() as source:
                tar.addfile(member, source)
