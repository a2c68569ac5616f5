"""The bundle and the environment on their way to executors that have neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likewise.bundles.open import Bundle
from likewise.bundles.trust import Trust
from likewise.engine.kinds import runs_code
from likewise.engine.options import EngineOptions
from likewise.engine.rates import cache_home
from likewise.shipping.payload import archive_of, engine_of, environment_of, manifest_key
from likewise.shipping.unpack import here
from likewise.targets.spark.bootstrap import Shipment
from likewise.targets.spark.session import is_local
from likewise.targets.spark.worker import Model

# what every executor has, in the version that its Spark wants
THEIRS = frozenset({"pyspark", "pyspark-client", "py4j", "pyarrow"})


def model_of(bundle: Bundle, options: EngineOptions, *, trust: Trust) -> Model:
    """How the workers open the model; CodeNotTrusted where only engines that run its code would do, and nobody said so.

    What the user trusts once and for all is known on the driver only, so it is decided here.
    """
    allowed = trust.allows(uri=str(bundle.path.resolve()), digest=bundle.digest)
    if runs_code(engine_of(bundle, options, trusted=allowed)):
        trust.require(uri=str(bundle.path.resolve()), digest=bundle.digest, what=f"the bundle {bundle.path}")
    return Model(manifest_key(bundle), str(bundle.path.absolute()), options.name, options.precision, allowed)


def ship(spark: Any, bundle: Bundle, model: Model, always: bool | None) -> Shipment | None:
    """Send bundle and environment to the executors of `spark`, and say what was sent; None where nothing need be.

    always: None sends unless the workers are processes of this machine.
    Raises MissingExtra (what the engine needs is not installed here), EngineUnavailable, WrongUsage.
    """
    if always is False or (always is None and is_local(spark)):
        return None
    folder = cache_home() / "spark"
    entry = engine_of(bundle, EngineOptions(model.engine, model.precision), trusted=model.trust)
    made = environment_of(bundle, entry, THEIRS)
    environment, archive = made.archive(folder), archive_of(bundle, folder)
    for path in (environment, archive):
        _send(spark, path)
    return {
        **here(),
        "model": archive.name,
        "model_key": model.key,
        "environment": environment.name,
        "environment_key": made.key,
        "package": made.package,
        "versions": made.versions,
    }


def _send(spark: Any, path: Path) -> None:
    spark.addArtifacts(str(path), file=True)
