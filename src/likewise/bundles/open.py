"""Opens bundles, verifying every byte before anything in them is used, and writes their manifests."""

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

BYTE_CODE = "__pycache__"  # the folder to which Python writes bytecode
LEFT_OUT = "left-out.json"  # lists reference files that this copy of the bundle omits: its engines do not use them


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """`sha256:…`, which identifies the bundle in responses, labels, manifests and receipts."""
        return self.manifest.digest

    @property
    def signature(self) -> Signature:
        """The model's signature."""
        return Signature.parse(self.manifest.signature_raw)

    @property
    def model_path(self) -> Path:
        """The folder of the MLflow model."""
        return self.path / "model"

    def reference_paths(self) -> dict[str, Path]:
        """The path of each vendored URI's copy."""
        return {r.uri: self.path / r.path for r in self.manifest.references}

    def resolve(self, uri: str) -> Path:
        """The vendored copy of `uri`, or its path inside the copy of a parent URI; raises ReferenceMissing."""
        if (path := lookup(self.reference_paths(), uri)) is not None:
            return path
        raise ReferenceMissing(
            f"the pipeline opens {uri}, which the bundle {self.path} does not contain",
            remedy=f"bundle the model again with --reference {uri}",
        )


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder that contains a manifest; does not verify anything."""
    return (path / MANIFEST).is_file()


def open_bundle(path: str | Path) -> Bundle:
    """Open the bundle at `path` after verifying every file against the manifest.

    A copy that lists omitted reference files in LEFT_OUT is the same bundle: the existing files are verified.

    Raises ModelNotFound (no such folder), BundleInvalid (not a bundle), BundleTampered (a changed, missing or added
    file), UnsafeArchive (a link, or a path outside the bundle), ReferenceMissing (a reference is missing).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelNotFound(f"there is no bundle at {folder}", remedy="build one: likewise bundle MODEL -o DIR")
    if not is_bundle(folder):
        raise BundleInvalid(
            f"{folder} is not a bundle: no {MANIFEST}", remedy="build one: likewise bundle MODEL -o DIR"
        )
    manifest = load_manifest((folder / MANIFEST).read_bytes())
    actual = inventory(folder, without=frozenset({MANIFEST, LEFT_OUT}))
    _compare(folder, {n: f for n, f in manifest.files.items() if n in actual or n not in _left_out(folder)}, actual)
    for reference in manifest.references:
        if not (folder / reference.path).exists():
            raise ReferenceMissing(
                f"the bundle {folder} lists {reference.uri} at {reference.path}, which does not exist",
                remedy="bundle the model again: likewise bundle MODEL -o DIR",
            )
    return Bundle(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write `likewise.json` for the bundle in `folder`; `manifest.files` is replaced with the files on disk."""
    sealed = replace(manifest, files=inventory(folder, without=frozenset({MANIFEST})))
    (folder / MANIFEST).write_bytes(sealed.dump())
    return Bundle(folder, sealed)


def _left_out(folder: Path) -> frozenset[str]:
    """Files that may be missing: references only, whose absence causes an error but never a different prediction."""
    try:
        listed = json.loads((folder / LEFT_OUT).read_bytes())
        return frozenset(name for name in listed if name.startswith("references/"))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleTampered(
            f"the bundle {folder} was modified after it was built: {LEFT_OUT} cannot be read", remedy="copy it again"
        ) from error


def _compare(folder: Path, expected: Mapping[str, FileEntry], actual: Mapping[str, FileEntry]) -> None:
    for name in sorted(expected.keys() | actual.keys(), key=lambda name: (BYTE_CODE in name.split("/"), name)):
        if name not in actual:
            problem = "is missing"
        elif name not in expected and BYTE_CODE in name.split("/"):
            raise _byte_code(folder, name)
        elif name not in expected:
            problem = "is not listed in its manifest"
        elif expected[name] != actual[name]:
            problem = "does not match the digest in its manifest"
        else:
            continue
        raise BundleTampered(
            f"the bundle {folder} was modified after it was built: the file {name} {problem}",
            remedy="do not use it; bundle the model again: likewise bundle MODEL -o DIR",
        )


def _byte_code(folder: Path, name: str) -> BundleTampered:
    """Probably not an attack, but rejected because Python would run the bytecode instead of the verified source."""
    return BundleTampered(
        f"the bundle {folder} was modified after it was built: {name} is bytecode, which Python writes when a program "
        "other than Likewise loads the model from the bundle",
        remedy=f"delete it: find {folder} -name {BYTE_CODE} -exec rm -r {{}} +; and set PYTHONDONTWRITEBYTECODE=1 "
        "for the program that loads the model",
    )
