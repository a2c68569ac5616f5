"""What an update reports about the inputs of the new version."""

from __future__ import annotations

from pathlib import Path

from likewise.bundles.format import Manifest
from likewise.bundles.open import write_manifest
from likewise.core.spec import ModelSpec
from likewise.targets.changes import changed_inputs


def model(folder: Path, inputs: str | None) -> ModelSpec:
    folder.mkdir()
    bundle = write_manifest(folder, Manifest({}, signature_raw=None if inputs is None else {"inputs": inputs}))
    return ModelSpec(bundle.digest, folder)


def test_other_inputs_are_named(tmp_path: Path) -> None:
    old = model(tmp_path / "old", '[{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]')
    kinds = '[{"name": "a", "type": "double"}, {"name": "b", "type": "string"}, {"name": "c", "type": "string", '
    new = model(tmp_path / "new", kinds + '"required": false}]')
    [finding] = changed_inputs(old, new)
    assert not finding.fatal
    assert (
        finding.cause == "the new version takes other inputs: without a (long); with a (double), c (string, optional)"
    )
    assert changed_inputs(old, old) == ()


def test_nothing_is_compared_without_a_signature_or_a_bundle(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old", '[{"name": "a", "type": "long"}]'), model(tmp_path / "new", None)
    assert changed_inputs(old, new) == ()
    assert changed_inputs(ModelSpec(new.digest, tmp_path / "missing"), old) == ()
    assert changed_inputs(ModelSpec("sha256:other", old.folder), new) == ()
    other = model(tmp_path / "third", '[{"name": "b", "type": "long"}]')
    assert changed_inputs(old, other)
    (old.folder / "likewise.json").write_text("{")  # as a damaged bundle must not prevent its replacement
    assert changed_inputs(old, other) == ()
