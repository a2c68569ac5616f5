"""Measures which engine is fastest on this CPU: those that need no trust, in turns on the same texts, in a child."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from likewise.builder.equality import results_match
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item, Row
from likewise.engine.child import Task, run_child, run_task
from likewise.engine.kinds import runs_code
from likewise.engine.load import open_entry
from likewise.engine.rates import label
from likewise.engine.text.compiled import TOKENIZER, classifier_path
from likewise.pipeline.pipeline import classifiers
from likewise.pipeline.texts import default_texts, sample

TIMEOUT = 300.0  # seconds
ROUNDS = 3  # the fastest counts: slower rounds are due to other load


@dataclass(frozen=True)
class Measurement:
    """rates: rows per second by engine label.  differing: engines whose predictions differ from fp32's for a text."""

    rates: Mapping[str, float]
    differing: tuple[str, ...]


def measure(bundle: Bundle, texts: Sequence[str] = ()) -> Measurement:
    """Time the engines of `bundle` on `texts`, or on generated texts if there are none.

    Raises EngineUnavailable if there are fewer than two engines to choose from.
    """
    models = classifiers(bundle.manifest.pipeline)
    if sum(not runs_code(entry) for entry in bundle.manifest.engines) < 2 or not models:
        raise EngineUnavailable(
            f"the bundle {bundle.path} has fewer than two engines to choose from",
            remedy="bundle a model with a declared pipeline on a machine with openvino and torch installed",
        )
    if not texts:
        uri, longest = next(iter(models.items()))
        texts = sample(default_texts(bundle.model_path, bundle.path / classifier_path(uri) / TOKENIZER, longest))
    with tempfile.TemporaryDirectory(prefix="likewise-measure-") as work:
        task = {"bundle": str(bundle.path.resolve()), "texts": list(texts)}
        result = run_child("likewise.builder.measure", task, Path(work), environment=os.environ, timeout=TIMEOUT)
    return Measurement(result["rates"], tuple(result["differing"]))


# --- in the child -----------------------------------------------------------------------------------------------------


def _measure(task: Task, work: Path) -> dict[str, object]:  # noqa: ARG001
    bundle = open_bundle(task["bundle"])
    items: list[Item] = [Row(("text",), (text,)) for text in task["texts"]]
    engines = _engines(bundle)
    results = {name: predict_items(engine, items) for name, engine in engines.items()}  # this is also the warm-up
    exact = results.get("torch/fp32") or next(iter(results[name] for name in results if name.endswith("/fp32")), [])
    differing = [name for name, each in results.items() if not all(map(results_match, each, exact))]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            seconds[name].append(_seconds(engine, items))
    rates = {name: round(len(items) / min(taken), 1) for name, taken in seconds.items() if name not in differing}
    return {"rates": rates, "differing": differing}


def _engines(bundle: Bundle) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    for entry in bundle.manifest.engines:
        if not runs_code(entry):
            try:
                engines[label(entry)] = open_entry(bundle, entry)
            except (MissingExtra, EngineUnavailable):  # an engine that cannot run here cannot be measured
                continue
    return engines


def _seconds(engine: Engine, items: Sequence[Item]) -> float:
    start = time.perf_counter()
    predict_items(engine, items)
    return time.perf_counter() - start


if __name__ == "__main__":  # python -m likewise.builder.measure TASK RESULT
    run_task(_measure, *sys.argv[1:])
