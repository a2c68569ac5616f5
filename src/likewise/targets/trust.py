"""Checks whether a deployment would have to run untrusted code."""

from __future__ import annotations

from likewise.bundles.format import MANIFEST, load_manifest
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import EngineOptions
from likewise.engine.kinds import runs_code


def needs_trust(model: ModelSpec) -> bool:
    """Whether every engine that can be chosen runs the model's untrusted code; False if the folder is missing."""
    manifest = model.folder / MANIFEST
    if model.trust or not manifest.is_file():
        return False
    choice = EngineOptions.of(model)
    entries = [each for each in load_manifest(manifest.read_bytes()).engines if choice.takes(each)]
    return bool(entries) and all(runs_code(each) for each in entries)
