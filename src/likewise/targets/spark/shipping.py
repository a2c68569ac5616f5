"""The bundle and the environment on their way to executors that have neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from likewise.bundles.archive import pack
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.bundles.trust import Trust
from likewise.core.digests import sha256_bytes
from likewise.core.errors import EngineUnavailable
from likewise.engine.options import EngineOptions
from likewise.engine.rates import by_speed, cache_home, known_rates
from likewise.targets.spark.bootstrap import Shipment, here
from likewise.targets.spark.environment import environment
from likewise.targets.spark.session import is_local
from likewise.targets.spark.worker import Model

EXTRAS = {"openvino": "openvino", "torch": "torch", "pyfunc": "mlflow"}


def model_of(bundle: Bundle, options: EngineOptions, *, trust: Trust) -> Model:
    """How the workers open the model; CodeNotTrusted where only engines that run its code would do, and nobody said so.

    What the user trusts once and for all is known on the driver only, so it is decided here.
    """
    allowed = trust.allows(uri=str(bundle.path.resolve()), digest=bundle.digest)
    entry = _entry(bundle, options, allowed)
    if entry.runs_code:
        trust.require(uri=str(bundle.path.resolve()), digest=bundle.digest, what=f"the bundle {bundle.path}")
    key = sha256_bytes(bundle.manifest.dump())[7:]
    return Model(key, str(bundle.path.absolute()), options.name, options.precision, allowed)


def ship(spark: Any, bundle: Bundle, model: Model, always: bool | None) -> Shipment | None:
    """Send bundle and environment to the executors of `spark`, and say what was sent; None where nothing need be.

    always: None sends unless the workers are processes of this machine.
    Raises MissingExtra (what the engine needs is not installed here), EngineUnavailable, WrongUsage.
    """
    if always is False or (always is None and is_local(spark)):
        return None
    folder = cache_home() / "spark"
    entry = _entry(bundle, EngineOptions(model.engine, model.precision), model.trust)
    requirements = [f"likewise[{EXTRAS[entry.name]}]"] if entry.name in EXTRAS else ["likewise"]
    if entry.runs_code:
        requirements += [line for line in bundle.manifest.environment.requirements if _plain(line)]
    made = environment(requirements, folder)
    # a name that Spark does not know: what ends in .tar.gz it unpacks into the executors' import path
    archive = folder / f"likewise-model-{model.key}.archive"
    if not archive.exists():
        stage = archive.with_suffix(f".{os.getpid()}")
        pack(bundle, stage).replace(archive)
    for path in (made.archive, archive):
        _send(spark, path)
    return {
        **here(),
        "model": archive.name,
        "model_key": model.key,
        "environment": made.archive.name,
        "environment_key": made.key,
        "package": made.package,
        "versions": made.versions,
    }


def _send(spark: Any, path: Path) -> None:
    spark.addArtifacts(str(path), file=True)


def _plain(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", "-"))


def _entry(bundle: Bundle, options: EngineOptions, allowed: bool) -> EngineEntry:
    """What the workers will most likely run: the fastest engine here, one that runs code only if that is allowed."""
    entries = by_speed([e for e in bundle.manifest.engines if options.takes(e)], known_rates(bundle.manifest))
    if not entries:
        raise EngineUnavailable(f"the bundle has no engine {options}", remedy=f"likewise inspect {bundle.path}")
    return next((entry for entry in entries if allowed or not entry.runs_code), entries[0])
