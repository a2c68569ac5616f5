"""`python -m likewise.demo`: the steps of the example as commands. The result is printed last, on stdout."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from likewise.core.errors import LikewiseError
from likewise.core.uris import without_secrets
from likewise.demo.data import BUNDLED

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune a sentiment classifier, log a pipeline that uses it, register the pipeline.",
)
err = Console(stderr=True)
QUICK_ROWS = 3840
QUICK = {"layers": 2, "body_rate": 6e-4, "head_rate": 2e-3}

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as a single JSON document on stdout.")]


@app.command()
def fine_tune(
    backbone: Annotated[
        str, typer.Option(help="Folder or Hugging Face name of a model to use instead of the included one.")
    ] = BUNDLED,
    source: Annotated[
        Literal["rotten_tomatoes", "imdb"], typer.Option(help="Data set of reviews to train on.")
    ] = "rotten_tomatoes",
    quick: Annotated[
        bool, typer.Option("--quick", help="Use two layers and half of the reviews, for a quick try.")
    ] = False,
    rows: Annotated[int | None, typer.Option(min=32, help="Number of rows to train on; all by default.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the training data.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed; equal seeds give equal models.")] = 8,
    as_json: JsonFlag = False,
) -> None:
    """Fine-tune a classifier on reviews and log it as `model`."""
    with _store() as (store, uri), _progress("fine-tuning") as progress:
        recipe = store.Recipe(backbone, epochs=epochs, seed=seed, **(QUICK if quick else {}))
        logged = store.log_fine_tuned(recipe, source, rows or (QUICK_ROWS if quick else None), progress)
    _print_result(asdict(logged) | {"tracking_uri": without_secrets(uri)}, as_json)


@app.command()
def log_pipeline(
    finetuned_model_uri: Annotated[
        str, typer.Option(help="URI of the classifier, as printed by fine-tune: runs:/RUN_ID/model.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Log the pipeline (cache, language, classifier, response) as `inference_pipeline_model`."""
    with _store() as (store, uri), err.status("logging the pipeline"):
        logged = store.log_pipeline(finetuned_model_uri)
    _print_result(asdict(logged) | {"tracking_uri": without_secrets(uri)}, as_json)


@app.command()
def register(
    model_uri: Annotated[
        str,
        typer.Option(help="URI of the pipeline, as printed by log-pipeline: runs:/RUN_ID/inference_pipeline_model."),
    ],
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "inference_pipeline_model",
    as_json: JsonFlag = False,
) -> None:
    """Register a logged model as models:/NAME/VERSION."""
    with _store() as (store, uri), err.status("registering"):
        logged = store.register(model_uri, name)
    _print_result(
        asdict(logged) | {"tracking_uri": without_secrets(uri), "model_uri": f"models:/{name}/{logged.version}"},
        as_json,
    )


@contextmanager
def _store() -> Iterator[tuple[Any, str]]:
    """The module `store`, which imports torch and MLflow, and the tracking URI in use; errors exit the process."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # before MLflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from likewise.demo import store

        yield store, store.choose_store()
    except LikewiseError as error:
        err.print(f"[red]{error.code}[/red] ", end="")
        err.print(f"{error.cause}\n  {error.remedy}", markup=False, highlight=False)
        raise typer.Exit(error.exit_code) from error


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """A function to report (batches done, total batches, loss): shows a bar, or in a pipe ten lines in total."""

    def line(done: int, total: int, loss: float) -> None:
        if 10 * done // total > 10 * (done - 1) // total:
            err.print(f"{title}: {done:,} of {total:,} batches, loss {loss:.3f}", highlight=False)

    if not err.is_terminal:
        yield line
        return
    of, left, loss = MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]}")
    with Progress(TextColumn(title), BarColumn(), of, left, loss, console=err) as bar:
        task = bar.add_task(title, total=None, loss="")
        yield lambda done, total, loss: bar.update(task, completed=done, total=total, loss=f"loss {loss:.3f}")


def _print_result(facts: dict[str, object], as_json: bool) -> None:
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the run is marked as failed and the bar removed
    app(prog_name="python -m likewise.demo")
