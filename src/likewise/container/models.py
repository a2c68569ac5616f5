"""Selection of the model that a container serves: the image's bundle or SageMaker's model data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from likewise.bundles.folder import ADDED_FOLDERS, inventory
from likewise.bundles.format import Manifest, ModelSource
from likewise.bundles.open import Bundle, is_bundle, open_bundle
from likewise.container.settings import ContainerOptions
from likewise.core.errors import CodeNotTrusted, ModelNotFound, WrongUsage
from likewise.engine.kinds import runs_code
from likewise.pipeline.mlmodel import read_model

IMAGE_BUNDLE = Path("/opt/likewise/bundle")
MLMODEL = "MLmodel"

Log = Callable[[str], None]


@dataclass(frozen=True)
class PlainModel(Bundle):
    """A plain MLflow model used as a bundle; files that it opens outside its own folder are not included."""

    @property
    def model_path(self) -> Path:
        return self.path


def find_model(options: ContainerOptions, log: Log, image: Path = IMAGE_BUNDLE) -> Bundle:
    """The bundle set in `options`, else the image's, else the one in `options.model_dir` or in its only subfolder.

    log: called with a line if model data is ignored.  A plain MLflow model in `model_dir` is served if its code is
    trusted.  Raises ModelNotFound, CodeNotTrusted, WrongUsage (two different bundles, and none selected), and the
    errors of `open_bundle`.
    """
    if options.bundle is not None:
        return _open(options.bundle)
    given = _inside(options.model_dir)
    if not is_bundle(image):
        return _given(options, given)
    if given is not None and is_bundle(given):
        return _only_one(_open(image), _open(given))
    if given is not None:
        log(f"serving the bundle in the image; the MLflow model in {given} is ignored")
    return _open(image)


def _open(folder: Path) -> Bundle:
    """The bundle in `folder`, which the platform protects; an image's lacks files that its engine does not read."""
    return open_bundle(folder, in_place=True, partial=True)


def _inside(folder: Path) -> Path | None:
    """`folder`, or its only subfolder, if it contains a bundle or an MLflow model; else None."""
    inside = folder.iterdir() if folder.is_dir() else ()
    below: list[Path] = sorted(path for path in inside if path.is_dir() and path.name not in ADDED_FOLDERS)
    for candidate in [folder, *(below if len(below) == 1 else [])]:
        if is_bundle(candidate) or (candidate / MLMODEL).is_file():
            return candidate
    return None


def _only_one(image: Bundle, given: Bundle) -> Bundle:
    if image.build != given.build:
        raise WrongUsage(
            f"the image contains the bundle {image.build}, but {given.path} contains another one, {given.build}",
            remedy=f"deploy without model data, or select the bundle to serve: LIKEWISE_BUNDLE={given.path}",
        )
    return image


def _given(options: ContainerOptions, given: Path | None) -> Bundle:
    if given is None:
        raise ModelNotFound(
            f"no model found: there is no bundle at {IMAGE_BUNDLE} or in {options.model_dir}",
            remedy="build the image with `likewise image build MODEL`, or pass the packed bundle as model data",
        )
    if is_bundle(given):
        return _open(given)
    if not options.trust:
        raise CodeNotTrusted(
            f"{given} contains an MLflow model that is not bundled: loading it runs its own Python code, which is not "
            "allowed, and files that it opens elsewhere are not included",
            remedy="bundle it first: likewise bundle MODEL -o DIR; or if you trust the author, set LIKEWISE_TRUST=true",
        )
    return _plain(given)


def _plain(folder: Path) -> PlainModel:
    facts = read_model(folder)
    manifest = Manifest(
        files={f"model/{name}": entry for name, entry in inventory(folder).items()},
        signature_raw=facts.signature_raw,
        row_wise=bool(facts.row_wise),
        source=ModelSource(str(folder), str(folder)),
        environment=facts.environment,
        engines=tuple(entry for entry in facts.engines() if runs_code(entry) or not facts.pipeline),
    )
    return PlainModel(folder, manifest)
