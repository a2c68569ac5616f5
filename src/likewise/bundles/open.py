"""Opens bundles, verifying every byte before anything in them is used, and writes their manifests."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from likewise.bundles.folder import FileEntry, added_by_others, empty_folders, inventory
from likewise.bundles.format import FORMAT, MANIFEST, REBUILD, Manifest, load_manifest
from likewise.bundles.private_copy import private_copy
from likewise.bundles.references import lookup
from likewise.core.errors import BundleInvalid, BundleTampered, LikewiseError, ModelNotFound, ReferenceMissing
from likewise.core.private_files import changeable_by_others, entry_changeable_by_others
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.core.uris import without_secrets

logger = logging.getLogger(__name__)

BYTE_CODE = "__pycache__"  # the folder to which Python writes bytecode


@dataclass(frozen=True, repr=False)
class Bundle:
    """A verified bundle on disk.

    missing: reference files that this copy lacks, see `open_bundle`; an engine that reads one of them does not open.
    original: the folder that was opened, if `path` is a private copy of it.
    """

    path: Path
    manifest: Manifest
    missing: frozenset[str] = field(default=frozenset(), kw_only=True)
    original: Path | None = field(default=None, kw_only=True, compare=False)

    def __repr__(self) -> str:
        engines = ", ".join(dict.fromkeys(each.name for each in self.manifest.engines))
        return (
            f"<Bundle {str(self.location)!r}: {self.manifest.source.clean.uri}, {self.build[:19]}…, engines {engines}>"
        )

    @property
    def location(self) -> Path:
        """The folder that the user named, without links, as it was when it was opened."""
        return self.original or self.path

    @property
    def digest(self) -> str:
        """The model digest, `sha256:…`: the same for every bundle of the same model."""
        return self.manifest.digest

    @property
    def build(self) -> str:
        """The build digest, `sha256:…`: covers everything that decides a prediction or an environment."""
        return self.manifest.build

    def has_digest(self, digest: str) -> bool:
        """Whether `digest` is its build digest, or its model digest, by which earlier versions name bundles."""
        return digest in (self.build, self.digest)

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


def open_bundle(path: str | Path, *, in_place: bool = False, partial: bool = False) -> Bundle:
    """Open the bundle at `path` after verifying every file against the manifest.

    If another user could change the folder, a parent of it or anything in it after this check, a private copy is
    verified and opened instead.  Links in `path` are resolved first: they may be another user's.  What other programs
    added to it (`folder.added_by_others`) is left out, by a private copy too, and a warning names it.
    in_place: copy only if such files lie between the model's, for a folder that the platform or the parent process
    protects.  partial: files that no engine of an image reads may be missing.

    Raises ModelNotFound (no such folder), BundleInvalid (not a bundle), BundleTampered (a changed, missing or added
    file), UnsafeArchive (a link, or a path outside the bundle), ReferenceMissing (a reference is missing).
    """
    folder, original = Path(path) if in_place else Path(path).resolve(), None
    if not folder.is_dir():
        if ":/" in str(path):
            raise ModelNotFound(
                f"{without_secrets(str(path))} is the URI of a model, not a bundle's folder",
                remedy="bundle it: likewise bundle URI -o DIR, or likewise.bundle(URI, DIR) in Python",
            )
        raise ModelNotFound(f"there is no bundle at {folder}", remedy="build one: likewise bundle MODEL -o DIR")
    if not is_bundle(folder):
        raise BundleInvalid(
            f"{folder} is not a bundle: no {MANIFEST}", remedy="build one: likewise bundle MODEL -o DIR"
        )
    manifest = load_manifest((folder / MANIFEST).read_bytes())
    added = added_by_others(folder, manifest.files)
    if added:
        names = ", ".join(sorted(added)[:SHOWN]) + (f" and {len(added) - SHOWN} more" if len(added) > SHOWN else "")
        logger.warning("left out of the bundle %s, because they are not part of it: %s", folder, names)
    changeable = not in_place and (added or changeable_by_others(folder) or entry_changeable_by_others(folder))
    if changeable or any("/" in name for name in added):  # the model would see these
        folder, original, added = private_copy(folder), folder, frozenset()
    try:
        if original is not None:
            manifest = load_manifest((folder / MANIFEST).read_bytes())
        return _verified(folder, manifest, original, partial=partial, added=added)
    except LikewiseError:
        if original is not None:  # else the same manifest would always find this copy
            shutil.rmtree(folder, ignore_errors=True)
        raise


SHOWN = 5  # added files in a warning

CHECKPOINTS = ("model/model/", "model/components/", "model/model.sentence_transformer/")
"""Weights and tokenizers of transformers and sentence-transformers, in MLflow's folders."""

OPTIONAL = ("references/", "model/code/", *CHECKPOINTS)
"""The files that a partial copy may lack, if its engine does not read them: also the model's Python modules."""


def _verified(
    folder: Path, manifest: Manifest, original: Path | None, *, partial: bool, added: Collection[str]
) -> Bundle:
    """The bundle in `folder`, which is a copy of `original`; raises as `open_bundle` does.

    manifest: the one in the folder.  added: relative paths to leave out.
    """
    actual = inventory(folder, without=frozenset({MANIFEST, *added}))
    missing = frozenset(name for name in manifest.files if name not in actual and name.startswith(OPTIONAL))
    _compare(original or folder, {n: f for n, f in manifest.files.items() if not (partial and n in missing)}, actual)
    empties = (each for each in empty_folders(folder) if each.relative_to(folder).parts[0] not in added)
    if not missing and manifest.format == FORMAT and (empty := next(empties, None)) is not None:
        raise _changed(original or folder, f"the folder {empty.relative_to(folder)} is empty")
    for reference in manifest.references if not missing else ():
        if not (folder / reference.path).exists():
            raise ReferenceMissing(
                f"the bundle {original or folder} lists {reference.uri} at {reference.path}, which does not exist",
                remedy=REBUILD,
            )
    return Bundle(folder, manifest, missing=missing, original=original)


def open_exactly(
    model: ModelSpec, folder: str | Path | None = None, *, in_place: bool = False, partial: bool = False
) -> Bundle:
    """Open the bundle of `model`, in its own folder or in the copy `folder`; see `open_bundle`.

    Also raises BundleTampered if it is another bundle or another build than the one that `model` names.
    """
    bundle = open_bundle(folder or model.folder, in_place=in_place, partial=partial)
    expected = (model.digest, model.build or bundle.build)  # receipts of earlier versions have no build digest
    if (bundle.digest, bundle.build) != expected:
        raise BundleTampered(
            f"the bundle in {bundle.location} is {bundle.digest} (build {bundle.build}), but {expected[0]} (build "
            f"{expected[1]}) was deployed",
            remedy="deploy the model again",
        )
    return bundle


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write `likewise.json` for the bundle in `folder`; `manifest.files` is replaced with the files on disk."""
    for empty in list(empty_folders(folder)):  # no digest covers them
        empty.rmdir()
    sealed = replace(manifest, files=inventory(folder, without=frozenset({MANIFEST})))
    (folder / MANIFEST).write_bytes(sealed.dump())
    return Bundle(folder, sealed)


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
        raise _changed(folder, f"the file {name} {problem}")


def _changed(folder: Path, what: str) -> BundleTampered:
    return BundleTampered(
        f"the bundle {folder} was modified after it was built: {what}", remedy=f"do not use it; {REBUILD}"
    )


def _byte_code(folder: Path, name: str) -> BundleTampered:
    """Probably not an attack, but rejected because Python would run the bytecode instead of the verified source."""
    return BundleTampered(
        f"the bundle {folder} was modified after it was built: {name} is bytecode, which Python writes when a program "
        "other than Likewise loads the model from the bundle",
        remedy=f"delete it: find {folder} -name {BYTE_CODE} -exec rm -r {{}} +; and set PYTHONDONTWRITEBYTECODE=1 "
        "for the program that loads the model",
    )
