"""What an update changes for the clients of a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from likewise.bundles.format import MANIFEST, load_manifest
from likewise.core.errors import LikewiseError
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.targets.base import Finding


def changed_inputs(before: ModelSpec, after: ModelSpec) -> Sequence[Finding]:
    """A warning if the inputs in the signature change; none if the bundle of a version cannot be read any more."""
    if before.digest == after.digest:
        return ()
    old, new = _inputs(before), _inputs(after)
    if old is None or new is None or old == new:
        return ()
    removed = [f"{name} ({kind})" for name, kind in old.items() if new.get(name) != kind]
    added = [f"{name} ({kind})" for name, kind in new.items() if old.get(name) != kind]
    parts = [f"{word} {', '.join(names)}" for word, names in (("without", removed), ("with", added)) if names]
    cause = f"the new version takes other inputs: {'; '.join(parts) or 'in another order'}"
    return [Finding(cause, "clients that send the former ones get an error", fatal=False)]


def _inputs(model: ModelSpec) -> Mapping[str, str] | None:
    """The kind of each input by its name, in their order; None without a signature, or a manifest that can be read."""
    try:
        manifest = load_manifest((model.folder / MANIFEST).read_bytes())
    except (OSError, LikewiseError):
        return None
    inputs = Signature.parse(manifest.signature_raw).inputs
    if manifest.digest != model.digest or inputs is None:
        return None
    return {
        each.name or str(index): each.kind if each.required else f"{each.kind}, optional"
        for index, each in enumerate(inputs)
    }
