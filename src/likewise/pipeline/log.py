"""Logs a pipeline as an ordinary MLflow model that contains all the code it needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.uris import without_secrets
from likewise.pipeline.declaration import code_path, is_built_in
from likewise.pipeline.pipeline import Pipeline

EXAMPLE = ("This is the best movie we saw.", "What a movie!")


@dataclass(frozen=True, slots=True)
class Logged:
    """A logged model: `uri` is `runs:/<run_id>/<name>`; `version` is its version in the registry, or None."""

    run_id: str
    uri: str
    version: int | None = None


def log_model(
    pipeline: Pipeline,
    *,
    name: str = "inference_pipeline_model",
    registered_model_name: str | None = None,
    extra_pip_requirements: Sequence[str] = (),
) -> Logged:
    """Log `pipeline` in the active MLflow run, or in a new one, and register it if a name is given.

    The model contains the `likewise` package and the code of custom steps; its requirements are pinned to the installed
    versions. Its answers contain its own URI. Raises MissingExtra without MLflow, and WrongUsage if a step opens a URI
    with user information, a query or a fragment.
    """
    mlflow = need("mlflow", extra="mlflow")
    pyfunc = need("mlflow.pyfunc", extra="mlflow")
    active = mlflow.active_run()
    with nullcontext(active) if active else mlflow.start_run() as run:
        pipeline.uri = f"runs:/{run.info.run_id}/{name}"
        arguments = _arguments(pipeline, extra_pip_requirements)
        info = pyfunc.log_model(name=name, registered_model_name=registered_model_name, **arguments)
        number = info.registered_model_version
        return Logged(str(run.info.run_id), pipeline.uri, None if number is None else int(number))


def save_model(pipeline: Pipeline, path: Path, *, extra_pip_requirements: Sequence[str] = ()) -> None:
    """Like `log_model`, but into a new folder; answers contain `pipeline.uri` unchanged."""
    pyfunc = need("mlflow.pyfunc", extra="mlflow")
    pyfunc.save_model(path=str(path), **_arguments(pipeline, extra_pip_requirements))


def _arguments(pipeline: Pipeline, extra_pip_requirements: Sequence[str]) -> dict[str, Any]:
    """The arguments that `mlflow.pyfunc.log_model` and `save_model` have in common."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    package = Path(__file__).parents[1]
    text = Schema([ColSpec("string", "text")])
    own = {code_path(type(step)) for step in pipeline.steps if not is_built_in(step)}
    return {
        "python_model": str(package / "pipeline" / "logged_model.py"),
        "model_config": pipeline.declaration(),
        "code_paths": [str(path) for path in sorted({package, *own})],
        "signature": ModelSignature(inputs=text, outputs=text),
        "input_example": pd.DataFrame({"text": EXAMPLE}),
        "pip_requirements": [*_pins(pipeline), *extra_pip_requirements],
        "metadata": {"likewise": _metadata(pipeline)},
    }


def _metadata(pipeline: Pipeline) -> dict[str, object]:
    """The metadata for building bundles: row-wise, references, and the pipeline if all its steps are built in."""
    for uri in pipeline.references:
        if without_secrets(uri) != uri:
            raise WrongUsage(
                f"the pipeline opens {without_secrets(uri)} with user information, a query or a fragment, which would "
                "be stored with the model and appear in its answers",
                remedy="use the URI without them; MLflow reads credentials from the environment",
            )
    facts: dict[str, object] = {"row_wise": True, "references": list(pipeline.references)}
    return facts | ({"pipeline": pipeline.declaration()} if pipeline.built_in else {})


def _pins(pipeline: Pipeline) -> list[str]:
    """`name==version` of the installed requirements, without local version labels (`+cpu`), which no index has."""
    names = {"mlflow", "pandas", "numpy", "tokenizers", *(name for step in pipeline.steps for name in step.requires)}
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted(names)]
