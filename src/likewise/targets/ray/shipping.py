"""What travels to the cluster: the bundle, and the environment that its engine needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from likewise.bundles.open import open_bundle
from likewise.core.spec import ModelSpec
from likewise.engine.rates import cache_home
from likewise.shipping.environment import Environment
from likewise.shipping.payload import archive_of, environment_of, trusted_engine

THEIRS = frozenset({"ray"})  # every node has it, in the version of its cluster


@dataclass(frozen=True, slots=True)
class Cargo:
    """bundle: as an archive on this machine. environment: what its engine needs, packed only where a node lacks it."""

    bundle: Path
    environment: Environment


def cargo(model: ModelSpec) -> Cargo:
    """What the replicas of `model` need.

    Raises MissingExtra (what the engine needs is not installed here), EngineUnavailable, CodeNotTrusted, and what
    `open_bundle` raises.
    """
    bundle = open_bundle(model.folder)
    environment = environment_of(bundle, trusted_engine(bundle, model), THEIRS)
    return Cargo(archive_of(bundle, shipments()), environment)


def shipments() -> Path:
    """Where archives are kept on this machine."""
    return cache_home() / "ray" / "sent"
