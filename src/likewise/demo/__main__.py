"""`python -m likewise.demo`: the chapter's entry points. What was made comes last, on stdout."""

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
from likewise.demo.data import BUNDLED

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune a sentiment classifier, log the pipeline around it, register it.",
)
err = Console(stderr=True)
QUICK_ROWS = 2560

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def fine_tune(
    backbone: Annotated[str, typer.Option(help="A folder or Hugging Face name instead of the bundled one.")] = BUNDLED,
    source: Annotated[Literal["rotten_tomatoes", "imdb"], typer.Option(help="Which reviews.")] = "rotten_tomatoes",
    quick: Annotated[bool, typer.Option("--quick", help="Two layers and a third of the reviews, for a trial.")] = False,
    all_layers: Annotated[
        bool, typer.Option("--all-layers/--freeze", help="Train every layer, in twice the time, or the last two.")
    ] = False,
    rows: Annotated[int | None, typer.Option(min=32, help="Train on that many rows only, for a trial.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models.")] = 8,
    as_json: JsonFlag = False,
) -> None:
    """Fine-tune a classifier on reviews and log it as `model`."""
    layers, trained_layers = 2 if quick else None, None if all_layers else 2
    with _opened() as (store, uri), _progress("fine-tuning") as progress:
        recipe = store.Recipe(backbone, layers, trained_layers, epochs, seed=seed)
        logged = store.log_fine_tuned(recipe, source, rows or (QUICK_ROWS if quick else None), progress)
    _made(asdict(logged) | {"tracking_uri": uri}, as_json)


@app.command()
def log_pipeline(
    finetuned_model_uri: Annotated[str, typer.Option(help="runs:/RUN_ID/model, as fine-tune printed it.")],
    as_json: JsonFlag = False,
) -> None:
    """Log the pipeline (cache, language, classifier, response) as `inference_pipeline_model`."""
    with _opened() as (store, uri), err.status("logging the pipeline"):
        logged = store.log_pipeline(finetuned_model_uri)
    _made(asdict(logged) | {"tracking_uri": uri}, as_json)


@app.command()
def register(
    model_uri: Annotated[str, typer.Option(help="runs:/RUN_ID/inference_pipeline_model, as log-pipeline printed it.")],
    name: Annotated[str, typer.Option(help="The registered model.")] = "inference_pipeline_model",
    as_json: JsonFlag = False,
) -> None:
    """Register a logged model: models:/NAME/VERSION."""
    with _opened() as (store, uri), err.status("registering"):
        logged = store.register(model_uri, name)
    _made(asdict(logged) | {"tracking_uri": uri, "model_uri": f"models:/{name}/{logged.version}"}, as_json)


@contextmanager
def _opened() -> Iterator[tuple[Any, str]]:
    """The module `store`, which needs torch and MLflow, and the URI of the store that it has chosen."""
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
    """Shows (batches done, batches in all, loss): a bar on a terminal, a line every tenth of the way in a pipe."""

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


def _made(facts: dict[str, object], as_json: bool) -> None:
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the run is marked as failed, the bar taken down
    app(prog_name="python -m likewise.demo")
