"""What travels to the cluster: the bundle, and the environment that its engine needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from likewise.bundles.archive import pack
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import EngineUnavailable
from likewise.engine.options import EngineOptions
from likewise.engine.rates import by_speed, cache_home, known_rates
from likewise.targets.base import Model
from likewise.targets.environment import Environment, environment

EXTRAS = {"openvino": "openvino", "torch": "torch", "pyfunc": "mlflow"}
THEIRS = frozenset({"ray"})  # every node has it, in the version of its cluster


@dataclass(frozen=True, slots=True)
class Cargo:
    """bundle: as an archive on this machine. environment: what its engine needs, packed only where a node lacks it."""

    bundle: Path
    environment: Environment


def cargo(model: Model) -> Cargo:
    """What the replicas of `model` need.

    Raises MissingExtra (what the engine needs is not installed here), EngineUnavailable, CodeNotTrusted, and what
    `open_bundle` raises.
    """
    bundle = open_bundle(model.folder)
    entry = engine_of(bundle, model)
    requirements = [f"likewise[{EXTRAS[entry.name]}]"] if entry.name in EXTRAS else ["likewise"]
    if entry.runs_code:
        requirements += [line for line in bundle.manifest.environment.requirements if _plain(line)]
    return Cargo(_packed(bundle), environment(requirements, THEIRS))


def engine_of(bundle: Bundle, model: Model) -> EngineEntry:
    """What the replicas will most likely run: the fastest engine here, one that runs code only if that is allowed."""
    options = EngineOptions(model.engine, model.precision)
    entries = by_speed([e for e in bundle.manifest.engines if options.takes(e)], known_rates(bundle.manifest))
    if not entries:
        raise EngineUnavailable(f"the bundle has no engine {options}", remedy=f"likewise inspect {bundle.path}")
    entry = next((entry for entry in entries if model.trust or not entry.runs_code), entries[0])
    if entry.runs_code:
        Trust(allow=model.trust).require(digest=bundle.digest, what=f"the bundle {bundle.path}")
    return entry


def shipments() -> Path:
    """Where archives are kept on this machine."""
    return cache_home() / "ray" / "sent"


def _packed(bundle: Bundle) -> Path:
    """The same bytes for the same bundle; made anew each time, as its folder may have been."""
    folder = shipments()
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"likewise-bundle-{bundle.digest[7:]}.archive"
    stage = archive.with_suffix(f".{os.getpid()}")
    try:
        return pack(bundle, stage).replace(archive)
    finally:
        stage.unlink(missing_ok=True)


def _plain(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", "-"))
