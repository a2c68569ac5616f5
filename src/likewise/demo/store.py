"""The three steps of the example with an MLflow store: fine-tune and log, log the pipeline, register it."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.utils.logging_utils import disable_logging, enable_logging

from likewise.core.errors import ModelNotFound, StoreUnreachable
from likewise.demo.data import ReviewSource, reviews, split
from likewise.demo.training import FineTuned, Progress, Recipe, fine_tune
from likewise.pipeline import Cache, Classify, DetectLanguage, Logged, Pipeline, Respond, log_model

EXPERIMENT = "sentiment"
MODEL = "model"
PIPELINE = "inference_pipeline_model"


@dataclass(frozen=True, slots=True)
class Trained:
    """A logged classifier, `runs:/<run_id>/model`, and its accuracy on the held-out rows, 0 to 1."""

    run_id: str
    uri: str
    accuracy: float
    train_rows: int
    held_out_rows: int


def choose_store() -> str:
    """Select the tracking server of MLFLOW_TRACKING_URI, else `mlflow.db` in the current folder; returns its URI.

    The choice also applies to child processes.  Raises StoreUnreachable if the server does not respond.
    """
    uri = os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    mlflow.set_tracking_uri(uri)
    try:
        _choose_experiment(uri)
    except mlflow.MlflowException as error:
        raise StoreUnreachable(f"{uri}: {error}", remedy="check MLFLOW_TRACKING_URI and the server") from error
    return uri


def _choose_experiment(uri: str) -> None:
    if os.environ.get("MLFLOW_RUN_ID") or os.environ.get("MLFLOW_EXPERIMENT_ID"):  # set by `mlflow run`
        return
    if mlflow.get_experiment_by_name(EXPERIMENT) is None and uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).resolve().parent
        mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "mlartifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)


def log_fine_tuned(
    recipe: Recipe,
    source: ReviewSource = "rotten_tomatoes",
    train_rows: int | None = None,
    progress: Progress = lambda *_: None,
) -> Trained:
    """Fine-tune with `recipe` and log the classifier as `model`, with its parameters and held-out accuracy.

    train_rows: number of rows to train on; the held-out rows stay the same.
    """
    rows = split(reviews(source))
    rows = replace(rows, train=rows.train[:train_rows])
    with mlflow.start_run(run_name="fine_tuning_model") as run:
        counts = {"train_rows": len(rows.train), "held_out_rows": len(rows.held_out)}
        mlflow.log_params(
            {each.name: getattr(recipe, each.name) for each in fields(recipe)} | {"source": source} | counts
        )
        tuned = fine_tune(recipe, rows, progress)
        mlflow.log_metric("held_out_accuracy", tuned.accuracy)
        _log_classifier(tuned)
        return Trained(run.info.run_id, f"runs:/{run.info.run_id}/{MODEL}", tuned.accuracy, **counts)


def _log_classifier(tuned: FineTuned) -> None:
    mlflow.transformers.log_model(
        {"model": tuned.model, "tokenizer": tuned.tokenizer},
        name=MODEL,
        task="text-classification",
        pip_requirements=[
            f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "transformers", "tokenizers")
        ],
    )


def log_pipeline(finetuned_model_uri: str) -> Logged:
    """Log the example's pipeline with the classifier at `finetuned_model_uri`; ModelNotFound if it does not exist."""
    try:
        mlflow.models.get_model_info(finetuned_model_uri)
    except (mlflow.MlflowException, OSError) as error:
        raise ModelNotFound(
            f"no model at {finetuned_model_uri}: {error}", remedy="fine-tune one: python -m likewise.demo fine-tune"
        ) from error
    pipeline = Pipeline(Cache(size=100), DetectLanguage(), Classify(finetuned_model_uri), Respond())
    with mlflow.start_run(run_name="inference_pipeline_model"):
        return log_model(pipeline, name=PIPELINE)


def register(model_uri: str, name: str = PIPELINE) -> Logged:
    """Register the model at `model_uri` as a new version of `name`; ModelNotFound if that fails."""
    disable_logging()  # MLflow prints the version, which we return, at every logging level
    try:
        registered = mlflow.register_model(model_uri, name)
    except mlflow.MlflowException as error:
        raise ModelNotFound(
            f"cannot register {model_uri}: {error}", remedy="log one: python -m likewise.demo log-pipeline"
        ) from error
    finally:
        enable_logging()
    return Logged(registered.run_id, model_uri, int(registered.version))
