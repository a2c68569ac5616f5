"""What runs first in a Spark worker, where nothing of Likewise may be installed.

Sent by value, together with `likewise.shipping.unpack`: it imports the standard library and `pyspark`, which is there.
"""

from __future__ import annotations

import os
import pickle
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from likewise.shipping.unpack import at_home, cache_folder, make_importable, require_like
from likewise.shipping.unpack import unpacked as unpacked_once

# A plain dict, as a class of ours could not be unpickled before the environment is there:
# python, platform; model, environment: names of sent files; model_key, environment_key: digests;
# package: digest of our own code; versions: of every distribution in the environment
Shipment = dict[str, Any]


def task(call: str, arguments: bytes, shipment: Shipment | None) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for Spark: `likewise.targets.spark.CALL(batches, folder, *arguments)`, once Likewise is importable.

    call: `module:function`. arguments: a pickled tuple. folder: of the bundle that came with `shipment`, None without.
    """

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        folder = None if shipment is None else arrive(shipment)
        # the tokenizer's threads: what Spark gave to the task, and not every core of the host
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        function = pkgutil.resolve_name(f"likewise.targets.spark.{call}")
        result: Iterator[Any] = function(batches, folder, *pickle.loads(arguments))  # noqa: S301  Spark's own channel
        return result

    return run


def arrive(shipment: Shipment) -> str:
    """Unpack what was sent, once a host, make it importable, and return the bundle's folder.

    Raises RuntimeError where this Python or platform is not the one that the environment was made on.
    """
    remedy = "run the driver and the executors on one Python minor version and platform (spark.pyspark.python)"
    require_like(shipment, "executor", remedy)
    if not at_home(shipment["package"], shipment["versions"]):
        make_importable(unpacked(shipment["environment"], shipment["environment_key"]))
    return unpacked(shipment["model"], shipment["model_key"])


def unpacked(name: str, key: str) -> str:
    """The folder of the archive `name` that Spark brought; see `likewise.shipping.unpack.unpacked`."""

    def fetch(stream: BinaryIO) -> None:
        from pyspark import SparkFiles

        with Path(SparkFiles.get(name)).open("rb") as brought:
            shutil.copyfileobj(brought, stream)

    return str(unpacked_once(cache_folder("spark"), key, fetch))
