"""Scans a bundle, or the model at a URI."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from likewise.builder.resolve import resolve
from likewise.builder.scan.code import references
from likewise.builder.scan.content import Contents, Limits
from likewise.builder.scan.findings import Remark, Scan
from likewise.builder.scan.judge import Judge
from likewise.bundles.folder import regular_files
from likewise.bundles.format import MANIFEST
from likewise.bundles.open import is_bundle, open_bundle
from likewise.core.uris import without_secrets
from likewise.pipeline.mlmodel import MLMODEL

LIMITS = Limits()


def scan(model: str | Path, *, limits: Limits = LIMITS, report: Callable[[str], None] | None = None) -> Scan:
    """List what loading `model` would import, call or run, without running or unpickling any of it; needs no trust.

    model: a bundle folder, or any MLflow model URI, whose model is copied to a temporary folder for the scan.
    report: called with progress messages.
    Raises MissingExtra, ModelNotFound, StoreUnreachable, UnsafeArchive, BundleTampered, BundleInvalid.
    """
    contents = Contents(Judge(), limits)
    if is_bundle(Path(model)):
        bundle = open_bundle(model)
        files = [(name, path) for name, path in regular_files(bundle.path) if name != MANIFEST]
        for name in sorted(bundle.manifest.files.keys() - {name for name, _ in files}):
            contents.not_analysed.append(Remark(name, "this copy of the bundle does not contain it"))
        return _scan(str(model), bundle.build, files, contents)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "model")
        if report is not None:
            report(f"fetching {without_secrets(str(model))}")
        resolve(str(model), root)
        files = list(regular_files(root)) if root.is_dir() else [(Path(model).name, root)]
        if (root / MLMODEL).is_file():
            for uri in references((root / MLMODEL).read_bytes()):
                contents.not_analysed.append(Remark(without_secrets(uri), "loaded by the model; scan a bundle of it"))
        return _scan(without_secrets(str(model)), None, files, contents)


def _scan(model: str, digest: str | None, files: list[tuple[str, Path]], contents: Contents) -> Scan:
    for name, path in files:
        contents.file(path, name)
    return Scan(model, digest, len(files), tuple(contents.pickles), tuple(contents.code), tuple(contents.not_analysed))
