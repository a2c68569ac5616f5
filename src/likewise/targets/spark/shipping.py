"""Shipping of the bundle and its environment to executors that have neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from likewise.bundles.cache import cache_folder
from likewise.bundles.open import Bundle
from likewise.core.spec import ModelSpec
from likewise.core.unpack import local_runtime
from likewise.engine.load import allowed_engines
from likewise.shipping.environment import whole_environment
from likewise.shipping.payload import archive_of, build_key, environment_of
from likewise.targets.spark.bootstrap import Shipment
from likewise.targets.spark.session import is_local
from likewise.telemetry.switch import exporters

# installed on every executor, in the version that its Spark needs
PREINSTALLED = frozenset({"pyspark", "pyspark-client", "py4j", "pyarrow"})


def ship(
    spark: Any, bundle: Bundle, model: ModelSpec, always: bool | None, packages: Path | None = None
) -> Shipment | None:
    """Send the bundle and the environment to the executors of `spark`, and describe them; None if nothing is sent.

    always: True sends, False does not, None sends unless the workers are local processes.  packages: the folder of the
    packages to send instead of the driver's.
    Raises CodeNotTrusted (only engines that run the model's code match), MissingExtra (a requirement of the engine is
    not installed here), EngineUnavailable, WrongUsage.
    """
    entry = allowed_engines(bundle.manifest, model)[0]
    if always is False or (always is None and is_local(spark)):
        return None
    folder = cache_folder("spark")
    if packages is None:
        extras = ["telemetry"] if exporters(os.environ) else []
        packed = environment_of(bundle, entry, PREINSTALLED, extras)
    else:
        packed = whole_environment(packages, PREINSTALLED)
    environment, archive = packed.archive(folder), archive_of(bundle, folder)
    for path in (environment, archive):
        spark.addArtifacts(str(path), file=True)
    return {
        **local_runtime(),
        "model": archive.name,
        "model_key": build_key(bundle),
        "environment": environment.name,
        "environment_key": packed.key,
        "package": packed.package,
        "versions": packed.versions,
        "exact": packages is not None,
    }
