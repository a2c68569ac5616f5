"""Reads the metadata of a model's folder without running the model's code."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.bundles.format import LoggedEnvironment
from likewise.core.errors import CodeNotTrusted, LikewiseError, ModelInvalid, WrongUsage
from likewise.core.extras import need
from likewise.core.signature import Signature
from likewise.core.uris import redacted, without_secrets
from likewise.engine.kinds import ModelFacts
from likewise.engine.pyfunc import FLAVOR
from likewise.pipeline.declaration import not_json
from likewise.pipeline.pipeline import Pipeline

MLMODEL = "MLmodel"


def read_model(folder: Path) -> ModelFacts:
    """Read the `MLmodel` file in `folder`; raises ModelInvalid, with the field's name, if it is missing or invalid."""
    raw = _mlmodel(folder)
    flavors = _mapping(raw, "flavors", folder)
    declared = _mapping(_mapping(raw, "metadata", folder), "likewise", folder)
    pyfunc = _mapping(flavors, FLAVOR, folder)
    pipeline = _pipeline(declared.get("pipeline"), folder)
    facts = ModelFacts(
        folder=folder,
        flavors={name: _mapping(flavors, name, folder) for name in flavors},
        signature_raw=_signature(raw, folder),
        row_wise=_row_wise(declared.get("row_wise"), folder),
        references=_references(declared, pipeline, folder),
        pipeline=pipeline,
        environment=LoggedEnvironment(
            str(pyfunc.get("python_version") or platform.python_version()), _requirements(folder)
        ),
    )
    if not facts.kinds():
        raise ModelInvalid(
            f"the model in {folder} has no {FLAVOR} flavor; it has: {', '.join(flavors) or 'none'}",
            remedy="log the model with a flavor that MLflow can load as a pyfunc",
        )
    return facts


def _mlmodel(folder: Path) -> Mapping[str, Any]:
    path = folder / MLMODEL
    if not path.is_file():
        raise ModelInvalid(
            f"the folder is neither a bundle nor an MLflow model: it has no likewise.json and no {MLMODEL}",
            remedy="pass a bundle, the URI of a logged model, or the folder that mlflow.….save_model created",
        )
    yaml = need("yaml", extra="mlflow")
    try:
        raw = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unreadable(folder, str(error)) from error
    if not isinstance(raw, dict):
        raise _unreadable(folder, f"it contains a {type(raw).__name__} instead of a mapping")
    return raw


def _mapping(raw: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise _unreadable(folder, f"{key!r} is not a mapping")
    return value


def _row_wise(value: object, folder: Path) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise _unreadable(folder, f"'row_wise' is {value!r} instead of true or false")
    return value


def _pipeline(declared: object, folder: Path) -> Mapping[str, object] | None:
    """The validated declaration: building the pipeline, without opening it, detects invalid fields early."""
    if declared is None:
        return None
    if not isinstance(declared, dict) or not isinstance(declared.get("steps"), list):
        raise _unreadable(folder, "the 'pipeline' is not a mapping with a list of 'steps'")
    if not isinstance(uri := declared.get("uri", ""), str):
        raise _unreadable(folder, f"the pipeline's 'uri' is {uri!s} instead of a string")
    if (problem := not_json(declared)) is not None:
        raise _unreadable(folder, f"the 'pipeline' {problem}")
    try:
        Pipeline.from_declaration(declared)
    except (ModelInvalid, CodeNotTrusted, WrongUsage) as error:
        raise _unreadable(folder, f"its 'pipeline' cannot be built: {error.cause}") from error
    return declared


def _signature(mlmodel: Mapping[str, Any], folder: Path) -> Mapping[str, object] | None:
    """The signature, validated with both MLflow's parser and Likewise's."""
    raw = _mapping(mlmodel, "signature", folder)
    if not raw:
        return None
    models = need("mlflow.models", extra="mlflow")
    try:
        Signature.parse(raw)
        models.ModelSignature.from_dict(raw)
    except Exception as error:
        raise _unreadable(folder, f"its 'signature' is invalid: {type(error).__name__}: {str(error)[:300]}") from error
    if (problem := not_json(raw)) is not None:
        raise _unreadable(folder, f"its 'signature' {problem}")
    return {**raw, "from_type_hints": True} if mlmodel.get("is_signature_from_type_hint") is True else raw


def _references(declared: Mapping[str, Any], pipeline: Mapping[str, Any] | None, folder: Path) -> tuple[str, ...]:
    listed = declared.get("references") or []
    if not isinstance(listed, list):
        raise _unreadable(folder, "the 'references' must be a list")
    models = [step["model"] for step in pipeline["steps"] if "model" in step] if pipeline else []
    if not all(isinstance(uri, str) and uri for uri in [*listed, *models]):
        raise _unreadable(folder, "each reference must be a URI")
    for uri in (*listed, *models):
        if without_secrets(uri) != uri:  # the file is part of the bundle
            raise _unreadable(
                folder,
                f"it declares the reference {without_secrets(uri)} with user information, a query or a fragment, which "
                "may be secret; MLflow reads credentials from the environment",
            )
    return tuple(dict.fromkeys([*listed, *models]))


def _requirements(folder: Path) -> tuple[str, ...]:
    path = folder / "requirements.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return tuple(redacted(line.strip()) for line in lines if line.strip() and not line.strip().startswith("#"))


def _unreadable(folder: Path, why: str) -> LikewiseError:
    return ModelInvalid(f"the {MLMODEL} of {folder.name} cannot be read: {why}", remedy="log the model again")
