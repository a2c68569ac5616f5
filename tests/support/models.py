"""The tests' example models, as MLflow folders, logged models, and bundles.

`Upper` (see upper.py) is the only pyfunc; its behavior is configured with the options of `upper`. Tests that do not
need a pyfunc should use the bundles of `likewise.testing.models`, which start in a quarter of the time.
The classifier, which needs torch, is in `tests.support.classifier`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from likewise.bundles.format import Manifest
from likewise.bundles.open import Bundle, write_manifest
from likewise.pipeline.mlmodel import read_model

UPPER = Path(__file__).with_name("upper.py")
TEXT = Schema([ColSpec("string", "text")])


def upper(
    mark: str = "",
    *,
    version: int | None = None,
    lengths: bool = False,
    loading: str = "",
    predicting: str = "",
    **more: Any,
) -> dict[str, Any]:
    """The model `Upper` as arguments of `mlflow.pyfunc.save_model` and `log_model`; for its configuration see upper.py.

    more: further arguments.
    """
    config = {"mark": mark, "version": version, "lengths": lengths, "loading": loading, "predicting": predicting}
    extra = [ColSpec("long", "version")] * (version is not None) + [ColSpec("long", "length")] * lengths
    return {
        "python_model": str(UPPER),
        "model_config": {name: value for name, value in config.items() if value not in ("", None, False)},
        "signature": ModelSignature(TEXT, Schema([*TEXT.inputs, *extra])),
        "pip_requirements": ["mlflow"],
        **more,
    }


def save_upper(folder: Path, mark: str = "", **options: Any) -> Path:
    """Save the model `Upper` to `folder`; for the options see `upper`."""
    mlflow.pyfunc.save_model(folder, **upper(mark, **options))
    return folder


def upper_bundle(folder: Path, mark: str = "", **options: Any) -> Path:
    """A bundle of the model `Upper` in `folder`; it needs trust. For the options see `upper`."""
    save_upper(folder / "model", mark, **options)
    return seal(folder).path


def save_code(folder: Path, code: str, **options: Any) -> Path:
    """Save a model from its code, which must end with `mlflow.models.set_model(...)`."""
    source = folder.with_name("code.py")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(dedent(code))
    mlflow.pyfunc.save_model(folder, python_model=str(source), pip_requirements=["mlflow"], **options)
    source.unlink()
    return folder


def seal(folder: Path, *, row_wise: bool = True) -> Bundle:
    """Write the manifest for the model in `folder / "model"`, without verifying or compiling anything."""
    facts = read_model(folder / "model")
    manifest = Manifest(
        {},
        signature_raw=facts.signature_raw,
        row_wise=row_wise,
        environment=facts.environment,
        engines=facts.engines(),
    )
    return write_manifest(folder, manifest)


def save_with_modules(folder: Path, modules: Mapping[str, str], code: str, **options: Any) -> Path:
    """Like `save_code`, with the files `modules` (source code by path) as the model's `code_paths`.

    Nothing of the code runs here: MLflow would import the modules into this process.
    """
    source = folder.with_name(f"{folder.name}-modules")
    for name, text in modules.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(dedent(text))
    empty = "import mlflow\nmlflow.models.set_model(mlflow.pyfunc.PythonModel())\n"
    save_code(folder, empty, code_paths=[str(path) for path in source.iterdir()], **options)
    (folder / "code.py").write_text(dedent(code))
    shutil.rmtree(source)
    return folder
