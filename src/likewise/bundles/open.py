"""Opening a bundle, whose every byte is checked before anything in it is used; and sealing one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from likewise.bundles.folder import FileEntry, inventory
from likewise.bundles.format import MANIFEST, Manifest, load_manifest
from likewise.bundles.references import lookup
from likewise.core.errors import BundleInvalid, BundleTampered, ModelNotFound, ReferenceMissing
from likewise.core.signature import Signature

BYTE_CODE = "__pycache__"  # as Python names the folder
LEFT_OUT = "left-out.json"  # a list of references' files that this copy of the bundle lacks: no engine here opens them


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """`sha256:…`, the bundle's name in answers, labels, manifests and receipts."""
        return self.manifest.digest

    @property
    def signature(self) -> Signature:
        """The model's signature."""
        return Signature.parse(self.manifest.signature_raw)

    @property
    def model_path(self) -> Path:
        """The MLflow model's folder."""
        return self.path / "model"

    def reference_paths(self) -> dict[str, Path]:
        """Where each vendored URI lies."""
        return {r.uri: self.path / r.path for r in self.manifest.references}

    def resolve(self, uri: str) -> Path:
        """The vendored path of `uri`, or of the longest vendored URI that it lies under; ReferenceMissing else."""
        if (found := lookup(self.reference_paths(), uri)) is not None:
            return found
        raise ReferenceMissing(
            f"the pipeline opens {uri}, which the bundle {self.path} does not carry",
            remedy=f"bundle the model again with --reference {uri}",
        )


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder with a manifest in it; says nothing of its bytes."""
    return (path / MANIFEST).is_file()


def open_bundle(path: str | Path) -> Bundle:
    """Open the bundle at `path` after checking every file against the manifest.

    A copy that says in LEFT_OUT which files of its references it lacks is the same bundle: what is there is checked.

    Raises ModelNotFound (no such folder), BundleInvalid (not a bundle), BundleTampered (a byte, a file more or less),
    UnsafeArchive (a link in it, a reference to outside it), ReferenceMissing (a reference that is not in it).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelNotFound(f"there is no bundle at {folder}", remedy="make one: likewise bundle MODEL -o DIR")
    if not is_bundle(folder):
        raise BundleInvalid(
            f"{folder} is not a bundle: it has no {MANIFEST}", remedy="make one: likewise bundle MODEL -o DIR"
        )
    manifest = load_manifest((folder / MANIFEST).read_bytes())
    found = inventory(folder, without=frozenset({MANIFEST, LEFT_OUT}))
    _compare(folder, {n: f for n, f in manifest.files.items() if n in found or n not in _left_out(folder)}, found)
    for reference in manifest.references:
        if not (folder / reference.path).exists():
            raise ReferenceMissing(
                f"the bundle {folder} names {reference.uri} at {reference.path}, and nothing is there",
                remedy="bundle the model again: likewise bundle MODEL -o DIR",
            )
    return Bundle(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Take stock of `folder` and write `likewise.json` over it; `manifest.files` is taken from the disk."""
    sealed = replace(manifest, files=inventory(folder, without=frozenset({MANIFEST})))
    (folder / MANIFEST).write_bytes(sealed.dump())
    return Bundle(folder, sealed)


def _left_out(folder: Path) -> frozenset[str]:
    """Of references only: what is missing there ends in an error, and never in another answer."""
    try:
        listed = json.loads((folder / LEFT_OUT).read_bytes())
        return frozenset(name for name in listed if name.startswith("references/"))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleTampered(
            f"the bundle {folder} was changed after it was made: {LEFT_OUT} cannot be read", remedy="copy it again"
        ) from error


def _compare(folder: Path, said: Mapping[str, FileEntry], found: Mapping[str, FileEntry]) -> None:
    for name in sorted(said.keys() | found.keys(), key=lambda name: (BYTE_CODE in name.split("/"), name)):
        if name not in found:
            problem = "is missing"
        elif name not in said and BYTE_CODE in name.split("/"):
            raise _byte_code(folder, name)
        elif name not in said:
            problem = "is not named in its manifest"
        elif said[name] != found[name]:
            problem = "has other bytes than its manifest names"
        else:
            continue
        raise BundleTampered(
            f"the bundle {folder} was changed after it was made: the file {name} {problem}",
            remedy="do not use it; bundle the model again: likewise bundle MODEL -o DIR",
        )


def _byte_code(folder: Path, name: str) -> BundleTampered:
    """Most likely no attack; refused all the same, as Python would run it in place of the source."""
    return BundleTampered(
        f"the bundle {folder} was changed after it was made: {name} is byte code, which Python writes where something "
        "other than Likewise loads the model in place",
        remedy=f"delete it: find {folder} -name {BYTE_CODE} -exec rm -r {{}} +; and set PYTHONDONTWRITEBYTECODE=1 "
        "for the program that loads it",
    )
