"""Logging a pipeline as an ordinary MLflow model that carries all the code it needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from likewise.core.extras import need
from likewise.pipeline.declaration import code_path, is_built_in
from likewise.pipeline.pipeline import Pipeline

EXAMPLE = ("This is the best movie we saw.", "What a movie!")


@dataclass(frozen=True, slots=True)
class Logged:
    """Where a model was logged: `uri` is `runs:/<run_id>/<name>`; `version` its number in the registry, or None."""

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
    """Log `pipeline` in the active MLflow run, or in a new one, and register it where a name is given.

    The model carries the `likewise` package and the code of steps that are not built in; its requirements are pinned to
    the versions that run here. Its own URI goes into its answers. Raises MissingExtra without MLflow.
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
    """As `log_model`, into a folder that does not exist yet; the answers name `pipeline.uri` as it is."""
    pyfunc = need("mlflow.pyfunc", extra="mlflow")
    pyfunc.save_model(path=str(path), **_arguments(pipeline, extra_pip_requirements))


def _arguments(pipeline: Pipeline, extra_pip_requirements: Sequence[str]) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` and `save_model` both take."""
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
    """What `build` reads: rows are independent, what is opened, and the pipeline where no code is needed to run it."""
    facts: dict[str, object] = {"row_wise": True, "references": list(pipeline.references)}
    return facts | ({"pipeline": pipeline.declaration()} if pipeline.built_in else {})


def _pins(pipeline: Pipeline) -> list[str]:
    """`name==version` of what runs here; a local build's tag (`+cpu`) is no index's business."""
    names = {"mlflow", "pandas", "numpy", "tokenizers", *(name for step in pipeline.steps for name in step.requires)}
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted(names)]
