"""The first code that runs in a Spark worker, where Likewise may not be installed.

Pickled by value together with `likewise.core.cores` and `likewise.core.unpack`: imports only the standard library, and
`pyspark`, which every worker has.
"""

from __future__ import annotations

import os
import pickle
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from likewise.core.cores import THREADS, thread_environment, usable_threads
from likewise.core.unpack import already_installed, cache_folder, make_importable, require_runtime
from likewise.core.unpack import unpacked as unpacked_once

# A plain dict, because a class of Likewise could not be unpickled before the environment is unpacked:
# python, platform; model, environment: names of shipped files; model_key, environment_key: digests;
# package: digest of Likewise's sources; versions: of every distribution in the environment; exact: whether a worker
# that has already loaded other versions must refuse
Shipment = dict[str, Any]


def task(call: str, arguments: bytes, shipment: Shipment | None) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for Spark that makes Likewise importable and calls `likewise.targets.spark.CALL`.

    call: `module:function`, called with (batches, folder, *arguments). arguments: a pickled tuple. folder: the bundle
    that came with `shipment`, None without a shipment.
    """

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        folder = None if shipment is None else install_shipment(shipment)
        # Spark sets OMP_NUM_THREADS to the cores of a task
        os.environ.update(thread_environment(os.environ, usable_threads() if THREADS in os.environ else 1))
        function = pkgutil.resolve_name(f"likewise.targets.spark.{call}")
        result: Iterator[Any] = function(batches, folder, *pickle.loads(arguments))  # noqa: S301  Spark's own channel
        return result

    return run


def install_shipment(shipment: Shipment) -> str:
    """Unpack the shipped archives, once per host, make Likewise importable, and return the bundle's folder.

    Raises RuntimeError if this Python or platform differs from the one that the environment was packed on.
    """
    remedy = "run the driver and the executors on one Python minor version and platform (spark.pyspark.python)"
    require_runtime(shipment, "executor", remedy)
    if not already_installed(shipment["package"], shipment["versions"]):
        make_importable(unpacked(shipment["environment"], shipment["environment_key"]))
        if shipment.get("exact"):
            require_unloaded(shipment["versions"])
    return unpacked(shipment["model"], shipment["model_key"])


def require_unloaded(versions: Mapping[str, str]) -> None:
    """RuntimeError if this process has already imported another version of a package, which cannot be replaced."""
    for name in ("numpy", "pandas"):
        loaded = getattr(sys.modules.get(name), "__version__", None)
        if loaded is not None and versions.get(name, loaded) != loaded:
            raise RuntimeError(
                f"the model needs {name} {versions[name]}, but Spark's Python workers have loaded {loaded}; run it as "
                "a job, whose local workers have the model's own versions: likewise score MODEL INPUT -o OUTPUT "
                f"--runner spark --env; or install {name} {versions[name]} where the workers run"
            )


def unpacked(name: str, key: str) -> str:
    """The folder of the archive `name` that Spark distributed; see `likewise.core.unpack.unpacked`."""

    def fetch(stream: BinaryIO) -> None:
        from pyspark import SparkFiles

        with Path(SparkFiles.get(name)).open("rb") as archive:
            shutil.copyfileobj(archive, stream)

    return str(unpacked_once(cache_folder("spark"), key, fetch))
