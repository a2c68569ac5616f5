"""What travels to the cluster: the bundle, and the environment that its engine needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from likewise.bundles.open import open_bundle
from likewise.bundles.trust import Trust
from likewise.engine.kinds import runs_code
from likewise.engine.options import EngineOptions
from likewise.engine.rates import cache_home
from likewise.shipping.environment import Environment
from likewise.shipping.payload import archive_of, engine_of, environment_of
from likewise.targets.base import Model

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
    entry = engine_of(bundle, EngineOptions(model.engine, model.precision), trusted=model.trust)
    if runs_code(entry):
        Trust(allow=model.trust).require(digest=bundle.digest, what=f"the bundle {bundle.path}")
    return Cargo(archive_of(bundle, shipments()), environment_of(bundle, entry, THEIRS))


def shipments() -> Path:
    """Where archives are kept on this machine."""
    return cache_home() / "ray" / "sent"
