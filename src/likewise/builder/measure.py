"""Which engine is fastest on this kind of CPU: each that needs no trust, in turns, on the same texts, in a child."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from likewise.builder.equality import same
from likewise.bundles.open import Bundle, open_bundle
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, answers
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item, Row
from likewise.engine.child import Task, carry_out, run_child
from likewise.engine.kinds import runs_code
from likewise.engine.load import open_entry
from likewise.engine.rates import label
from likewise.engine.text.compiled import TOKENIZER, place
from likewise.pipeline.pipeline import classifiers
from likewise.pipeline.texts import made_texts, sample

TIMEOUT = 300.0  # seconds
ROUNDS = 3  # the best counts: what slows a pass down is not the engine


@dataclass(frozen=True)
class Measurement:
    """rates: rows a second by engine label.  differing: engines that answered a text otherwise than fp32 does."""

    rates: Mapping[str, float]
    differing: tuple[str, ...]


def measure(bundle: Bundle, texts: Sequence[str] = ()) -> Measurement:
    """Time the engines of `bundle` on `texts`, or on texts made up.

    Raises EngineUnavailable where there is no choice between engines to make.
    """
    models = classifiers(bundle.manifest.pipeline)
    if sum(not runs_code(entry) for entry in bundle.manifest.engines) < 2 or not models:
        raise EngineUnavailable(
            f"the bundle {bundle.path} has no two engines to choose between",
            remedy="bundle a model with a declared pipeline, where openvino and torch are installed",
        )
    if not texts:
        uri, longest = next(iter(models.items()))
        texts = sample(made_texts(bundle.model_path, bundle.path / place(uri) / TOKENIZER, longest))
    with tempfile.TemporaryDirectory(prefix="likewise-measure-") as work:
        task = {"bundle": str(bundle.path.resolve()), "texts": list(texts)}
        result = run_child("likewise.builder.measure", task, Path(work), environment=os.environ, timeout=TIMEOUT)
    return Measurement(result["rates"], tuple(result["differing"]))


# --- in the child -----------------------------------------------------------------------------------------------------


def _measure(task: Task, work: Path) -> dict[str, object]:  # noqa: ARG001
    bundle = open_bundle(task["bundle"])
    items: list[Item] = [Row(("text",), (text,)) for text in task["texts"]]
    engines = _engines(bundle)
    said = {name: answers(engine, items) for name, engine in engines.items()}  # the first pass is a warm-up too
    exact = said.get("torch/fp32") or next(iter(said[name] for name in said if name.endswith("/fp32")), [])
    differing = [name for name, results in said.items() if not all(map(same, results, exact))]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            seconds[name].append(_seconds(engine, items))
    rates = {name: round(len(items) / min(taken), 1) for name, taken in seconds.items() if name not in differing}
    return {"rates": rates, "differing": differing}


def _engines(bundle: Bundle) -> dict[str, Engine]:
    found: dict[str, Engine] = {}
    for entry in bundle.manifest.engines:
        if not runs_code(entry):
            try:
                found[label(entry)] = open_entry(bundle, entry, trust=Trust(allow=False, entries=()))
            except (MissingExtra, EngineUnavailable):  # one that cannot run here has no speed here
                continue
    return found


def _seconds(engine: Engine, items: Sequence[Item]) -> float:
    start = time.perf_counter()
    answers(engine, items)
    return time.perf_counter() - start


if __name__ == "__main__":  # python -m likewise.builder.measure TASK RESULT
    carry_out(_measure, *sys.argv[1:])
