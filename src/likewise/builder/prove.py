"""Verifies that a finished bundle works in isolation: in a child process without store, network and credentials.

On Linux, kernel namespaces hide the network and the store's folders ("namespaces"). In addition, and as the only means
where namespaces are not available, a Python audit hook rejects such accesses ("audit hook").
"""

from __future__ import annotations

import errno
import os
import site
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from likewise.builder.audit import AuditWatch
from likewise.builder.equality import describe_result, results_match
from likewise.builder.isolation import isolate_process
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import LikewiseError, MissingExtra, ModelRaised, NotSelfContained, RowRefused, RowWiseRefuted
from likewise.core.items import Item, Request, Row
from likewise.core.processes import die_with_parent
from likewise.core.results import Failed, Ok, Result
from likewise.engine.child import Task, run_child, run_task
from likewise.engine.example import Example, read_example, variants
from likewise.engine.kinds import runs_code
from likewise.engine.load import open_entry
from likewise.engine.plain_values import per_row, plain
from likewise.engine.pyfunc import PyfuncEngine

TIMEOUT = 600.0  # seconds
NO_STORE = "no-tracking-server-in-a-bundle"
_STORES = ("MLFLOW_", "AWS_", "DATABRICKS_", "AZURE_", "GOOGLE_", "GCP_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PLACES = (  # of settings, weights and data, by default in the home folder
    *("XDG_", "KERAS_HOME", "MPLCONFIGDIR", "MATPLOTLIBRC", "NLTK_DATA", "TORCH_HOME", "SENTENCE_TRANSFORMERS_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"),
)


@dataclass(frozen=True)
class Proof:
    """isolation: `namespaces` or `audit hook`.  engines: labels of those tried.  rows: number of rows compared."""

    isolation: str
    engines: tuple[str, ...]
    rows: int


def prove(bundle: Path, *, hidden: Sequence[Path], code: bool, timeout: float = TIMEOUT) -> Proof:
    """Open the bundle in the folder `bundle` in isolation, and predict its example with each engine that may run.

    hidden: the folders and files that the model came from.  code: whether to try engines that run the model's code.
    Raises NotSelfContained, RowWiseRefuted, and what opening the bundle raises.
    """
    task = {"bundle": str(bundle.resolve()), "hidden": [str(p) for p in hidden], "code": code}
    with tempfile.TemporaryDirectory(prefix="likewise-proof-") as work:
        home = Path(work, "home")  # empty: no settings, caches or data of this machine
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith((*_STORES, *_PLACES))}
        environment |= {"HOME": str(home), "PYTHONUSERBASE": site.getuserbase()}
        environment |= {"MLFLOW_TRACKING_URI": f"{NO_STORE}://", "MLFLOW_REGISTRY_URI": f"{NO_STORE}://"}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        result = run_child("likewise.builder.prove", task, Path(work), environment=environment, timeout=timeout)
    return Proof(result["isolation"], tuple(result["engines"]), result["rows"])


# --- in the child -----------------------------------------------------------------------------------------------------

Predict = Callable[[Sequence[Item]], list[Result]]


def _refuse(access: str) -> None:
    raise PermissionError(f"the model {access}, which is not available where the bundle runs")


def _miss(source: str) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)


def _try_all(task: Task, work: Path) -> dict[str, object]:
    folder, hidden = Path(task["bundle"]), [Path(p) for p in task["hidden"]]
    python = [Path(p) for p in (sys.prefix, sys.base_prefix, *sys.path) if p and Path(p).is_dir()]
    kept = (folder, work, *dict.fromkeys(python))
    os.chdir(work)  # the working folder would stay accessible although its path is hidden
    isolated = isolate_process(hidden, kept)
    die_with_parent(task["parent"])
    AuditWatch(_refuse, own=kept, hidden=hidden, everywhere=False, on_source=_miss).start()
    bundle = open_bundle(folder)
    entries = [e for e in bundle.manifest.engines if task["code"] or not runs_code(e)]
    example = read_example(bundle.model_path)
    predictions = _predictions(bundle, entries, example)
    _compare_engines(predictions)
    _check_unchanged(folder)
    return {
        "isolation": "namespaces" if isolated else "audit hook",
        "engines": list(predictions),
        "rows": len(example.table) if example is not None else 0,
    }


def _predictions(bundle: Bundle, entries: Sequence[EngineEntry], example: Example | None) -> dict[str, list[Result]]:
    """Predictions by engine label, without engines whose libraries are missing; MissingExtra if none can be tried."""
    predictions: dict[str, list[Result]] = {}
    missing: MissingExtra | None = None
    for entry in entries:
        try:
            predictions[f"{entry.name}/{entry.precision}"] = _try(bundle, entry, example)
        except MissingExtra as error:
            missing = missing or error
    if missing is not None and not predictions:
        raise missing
    return predictions


def _try(bundle: Bundle, entry: EngineEntry, example: Example | None) -> list[Result]:
    try:
        engine = open_entry(bundle, entry)
    except MissingExtra:
        raise
    except LikewiseError as error:
        raise _not_isolated(f"the engine {entry.name} does not load from the bundle in isolation", error) from error
    try:
        return [] if example is None else _predict(engine, example)
    finally:
        engine.close()


def _predict(engine: Engine, example: Example) -> list[Result]:
    """The example's prediction: one result per row, if the model returns one."""
    table = example.table
    by_row = engine.spec.row_wise and table.sent is None
    try:
        results = _as_logged(engine, example) if isinstance(engine, PyfuncEngine) and not by_row else None
        if results is None:
            items: list[Item] = list(table.split(example.params)) if by_row else [Request(table, example.params)]
            results = predict_items(engine, items)
        for result in results:
            if isinstance(result, Failed):
                raise result.error
    except LikewiseError as error:
        raise _not_isolated(f"the engine {engine.spec.label} cannot predict the input example", error) from error
    if by_row:
        refute_row_wise(partial(predict_items, engine), example)
        return results
    return _by_row(results[0], len(table))


def _as_logged(engine: PyfuncEngine, example: Example) -> list[Result] | None:
    """The prediction for the example as `load_model().predict` takes it; None if its JSON has lost the types."""
    try:
        return [Ok(plain(engine.predict(example.value, example.params)))]
    except ModelRaised:
        raise
    except RowRefused:
        return None


def _by_row(result: Result, rows: int) -> list[Result]:
    """A prediction for all rows as one for each, if it can be assigned to rows."""
    try:
        return [Ok(each) for each in per_row(result.value, rows)] if isinstance(result, Ok) else [result]
    except LikewiseError:
        return [result]


def refute_row_wise(predict: Predict, example: Example) -> None:
    """Raise RowWiseRefuted if a row's prediction depends on the other rows; not raising does not prove independence."""
    table = example.table
    rows: list[Item] = [Row(table.columns, values, example.params) for values in [*table.rows, *variants(table)]]
    alone = [predict([row])[0] for row in rows]
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        together = predict([rows[i] for i in order])
        for i, result in zip(order, together, strict=True):
            if not results_match(alone[i], result):
                raise RowWiseRefuted(
                    "the model is declared row-wise, but its rows depend on each other: "
                    f"the row {_values(rows[i])} gives {describe_result(alone[i])} by itself, "
                    f"and {describe_result(result)} together with other rows",
                    remedy="fix the model, or declare row_wise: false (likewise bundle --no-row-wise)",
                )


def _values(item: Item) -> str:
    text = repr(item.values) if isinstance(item, Row) else ""
    return text if len(text) <= 100 else text[:100] + "…"


def _compare_engines(predictions: Mapping[str, list[Result]]) -> None:
    """Raise NotSelfContained unless all engines give the first one's predictions."""
    (first, expected), *others = predictions.items() if predictions else [("", [])]
    for label, results in others:
        for row, (one, other) in enumerate(zip(expected, results, strict=True)):
            if not results_match(one, other):
                raise NotSelfContained(
                    f"two engines give different predictions for row {row} of the input example: "
                    f"{first}: {describe_result(one)}; {label}: {describe_result(other)}",
                    remedy="report this with the model: the declared pipeline and its Python code behave differently",
                )


def _check_unchanged(folder: Path) -> None:
    try:
        open_bundle(folder)
    except LikewiseError as error:
        raise _not_isolated("the model modifies its own files when it runs", error) from error


def _not_isolated(what: str, error: LikewiseError) -> NotSelfContained:
    return NotSelfContained(f"{what}: {error.cause}", remedy=error.remedy)


if __name__ == "__main__":  # python -m likewise.builder.prove TASK RESULT
    run_task(_try_all, *sys.argv[1:])
