"""Which model a container serves: the image's bundle, or what SageMaker has unpacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from likewise.bundles.folder import inventory
from likewise.bundles.format import Manifest, ModelSource
from likewise.bundles.open import Bundle, is_bundle, open_bundle
from likewise.container.settings import ContainerOptions
from likewise.core.errors import CodeNotTrusted, ModelNotFound, WrongUsage
from likewise.engine.kinds import runs_code
from likewise.pipeline.mlmodel import read_model

IMAGE_BUNDLE = Path("/opt/likewise/bundle")
MLMODEL = "MLmodel"

Note = Callable[[str], None]


@dataclass(frozen=True)
class PlainModel(Bundle):
    """An MLflow model in the place of a bundle: what it opens besides itself is not there."""

    @property
    def model_path(self) -> Path:
        return self.path


def find_model(options: ContainerOptions, note: Note, image: Path = IMAGE_BUNDLE) -> Bundle:
    """The bundle that `options` name, else the image's, else the one in `options.model_dir` or in its only folder.

    note: gets a line where something there is not used.  An MLflow model in `model_dir` that is no bundle is served
    where its code is trusted.  Raises ModelNotFound, CodeNotTrusted, WrongUsage (two bundles, and nothing says which),
    and what `open_bundle` raises.
    """
    if options.bundle is not None:
        return open_bundle(options.bundle)
    given = _inside(options.model_dir)
    if not is_bundle(image):
        return _given(options, given)
    if given is not None and is_bundle(given):
        return _only_one(open_bundle(image), open_bundle(given))
    if given is not None:
        note(f"the bundle in the image is served; the MLflow model in {given} is not used")
    return open_bundle(image)


def _inside(folder: Path) -> Path | None:
    """`folder`, or the only folder in it, where it holds a bundle or an MLflow model."""
    below: list[Path] = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for each in [folder, *(below if len(below) == 1 else [])]:
        if is_bundle(each) or (each / MLMODEL).is_file():
            return each
    return None


def _only_one(image: Bundle, given: Bundle) -> Bundle:
    if image.digest != given.digest:
        raise WrongUsage(
            f"the image holds the bundle {image.digest}, and {given.path} another one, {given.digest}",
            remedy=f"deploy without model data, or name the one to serve: LIKEWISE_BUNDLE={given.path}",
        )
    return image


def _given(options: ContainerOptions, given: Path | None) -> Bundle:
    if given is None:
        raise ModelNotFound(
            f"there is no model: neither a bundle at {IMAGE_BUNDLE} nor one in {options.model_dir}",
            remedy="build the image with `likewise image build MODEL`, or give the packed bundle as model data",
        )
    if is_bundle(given):
        return open_bundle(given)
    if not options.trust:
        raise CodeNotTrusted(
            f"{given} holds an MLflow model and no bundle: it can only be loaded by running its own Python code, which "
            "nobody has allowed, and what it opens elsewhere is not with it",
            remedy="bundle it first: likewise bundle MODEL -o DIR; or, if you trust its maker, set LIKEWISE_TRUST=true",
        )
    return _plain(given, options)


def _plain(folder: Path, options: ContainerOptions) -> PlainModel:
    if options.workers:
        raise WrongUsage(
            f"{folder} holds no bundle, and only a bundle is served by worker processes",
            remedy="leave LIKEWISE_WORKERS out, or bundle the model first: likewise bundle MODEL -o DIR",
        )
    facts = read_model(folder)
    manifest = Manifest(
        files={f"model/{name}": entry for name, entry in inventory(folder).items()},
        signature_raw=facts.signature_raw,
        row_wise=bool(facts.row_wise),
        source=ModelSource(str(folder), str(folder)),
        environment=facts.environment,
        engines=tuple(entry for entry in facts.engines() if runs_code(entry)),
    )
    return PlainModel(folder, manifest)
