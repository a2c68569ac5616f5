"""The bundle and the environment on their way to executors that have neither."""

from __future__ import annotations

from typing import Any

from likewise.bundles.open import Bundle
from likewise.core.spec import ModelSpec
from likewise.engine.rates import cache_home
from likewise.shipping.payload import archive_of, environment_of, manifest_key, trusted_engine
from likewise.shipping.unpack import here
from likewise.targets.spark.bootstrap import Shipment
from likewise.targets.spark.session import is_local

# what every executor has, in the version that its Spark wants
THEIRS = frozenset({"pyspark", "pyspark-client", "py4j", "pyarrow"})


def ship(spark: Any, bundle: Bundle, model: ModelSpec, always: bool | None) -> Shipment | None:
    """Send bundle and environment to the executors of `spark`, and say what was sent; None where nothing need be.

    always: None sends unless the workers are processes of this machine.
    Raises CodeNotTrusted (only engines that run its code would do), MissingExtra (what the engine needs is not
    installed here), EngineUnavailable, WrongUsage.
    """
    entry = trusted_engine(bundle, model)
    if always is False or (always is None and is_local(spark)):
        return None
    folder = cache_home() / "spark"
    made = environment_of(bundle, entry, THEIRS)
    environment, archive = made.archive(folder), archive_of(bundle, folder)
    for path in (environment, archive):
        spark.addArtifacts(str(path), file=True)
    return {
        **here(),
        "model": archive.name,
        "model_key": manifest_key(bundle),
        "environment": environment.name,
        "environment_key": made.key,
        "package": made.package,
        "versions": made.versions,
    }
