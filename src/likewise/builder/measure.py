"""Measures the engines of a bundle on this CPU, in turns on the same rows, and plain `load_model` for comparison."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from likewise.builder.equality import results_match
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item, Params, Request, Row, Table
from likewise.core.scratch import scratch_folder
from likewise.engine.accelerate.rows import timing_rows
from likewise.engine.child import OnFraction, Task, completed, run_child, run_task
from likewise.engine.code_free import why_code
from likewise.engine.example import Example, read_example
from likewise.engine.kinds import is_compiled, runs_code
from likewise.engine.load import open_entry
from likewise.engine.pools import loaded_pools
from likewise.engine.pyfunc import FLAVOR, PyfuncKind
from likewise.engine.rates import PLAIN, label
from likewise.engine.text.compiled import TOKENIZER, classifier_path
from likewise.engine.text.texts import default_texts, sample
from likewise.pipeline.pipeline import classifiers

TIMEOUT = 300.0  # seconds
ROUNDS = 3  # the fastest counts: slower rounds are due to other load
ROWS, CALLERS = 64, 16  # rows of an example per round, and how many of them arrive at the same time
LIMIT = 0.5  # seconds per round of plain load_model; a slower model is timed on fewer rows


@dataclass(frozen=True)
class Measurement:
    """rates: rows per second by engine label, and of plain `load_model`.  differing: engines that differ from fp32.

    pools: the threads of each library that the engines have loaded.
    """

    rates: Mapping[str, float]
    differing: tuple[str, ...] = ()
    pools: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Contender:
    """Something that predicts the rows once when called; seconds: of each round."""

    predict: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        start = time.perf_counter()
        self.predict()
        self.seconds.append(time.perf_counter() - start)


def measure(
    bundle: Bundle, texts: Sequence[str] = (), *, code: bool = False, progress: OnFraction | None = None
) -> Measurement:
    """Time the engines of `bundle`: of a pipeline on `texts`, or on generated ones; of another model on its example.

    code: whether the model's own code may run.  progress: called with the completed fraction.
    Raises EngineUnavailable if there is nothing to compare, or no example.
    """
    models = classifiers(bundle.manifest.pipeline)
    entries = [entry for entry in bundle.manifest.engines if code or not runs_code(entry)]
    if models and sum(not runs_code(entry) for entry in entries) < 2:
        raise EngineUnavailable(
            f"the bundle {bundle.path} has fewer than two engines to choose from",
            remedy="bundle a model with a declared pipeline on a machine with openvino and torch installed",
        )
    compiled = is_compiled(bundle.manifest.engines)
    if not models and (not entries or (read_example(bundle.model_path) is None and not compiled)):
        why = "no example to time it on" if entries else "no engine that may run without --trust"
        raise EngineUnavailable(
            f"the bundle {bundle.path} has {why}",
            remedy="log the model with an input_example, and add --trust if it has its own code",
        )
    if models and not texts:
        uri, longest = next(iter(models.items()))
        texts = sample(default_texts(bundle.model_path, bundle.path / classifier_path(uri) / TOKENIZER, longest))
    with scratch_folder("likewise-scratch-measure-") as work:
        task = {"bundle": str(bundle.path.resolve()), "texts": list(texts), "code": code}
        result = run_child(
            "likewise.builder.measure", task, work, environment=os.environ, timeout=TIMEOUT, progress=progress
        )
    return Measurement(result["rates"], tuple(result["differing"]), result["pools"])


# --- in the child -----------------------------------------------------------------------------------------------------


def compare(bundle: Bundle, example: Example | None, *, code: bool, after: float = 0.0) -> dict[str, float]:
    """Rows per second of each engine that may run and of plain `load_model`, which predicts one row after the other.

    Rows of different requests arrive 16 at a time, and only share a batch if the model's rows are independent.
    after: the fraction of the task that has been completed before.
    Returns nothing without an example, except for a model with compiled modules, which is timed on texts.
    """
    tables = list(_alone(example.table)) if example is not None else []
    if is_compiled(bundle.manifest.engines):
        tables = [Table(row.columns, [row.values]) for row in timing_rows(bundle, example)] or tables
    if not tables:
        return {}
    params = example.params if example is not None else None
    entries = [entry for entry in bundle.manifest.engines if code or not runs_code(entry)]
    engines = _engines(bundle, entries)
    checked = any(name.startswith("onnx/") for name in engines)  # it has just checked what MLflow's loader reads
    with_plain = code or checked or why_code(bundle.model_path) is None
    plain = PyfuncKind().open(bundle, EngineEntry(FLAVOR, "native")) if with_plain else None
    if plain is not None:
        once = Contender(lambda: plain.call(plain.input_of(tables[0]), params))
        once.run()  # the warm-up
        once.run()
        rows = max(1, min(ROWS, int(LIMIT / once.seconds[-1])))
    else:
        rows = ROWS
    many = list(itertools.islice(itertools.cycle(tables), rows))
    contenders = {name: Contender(partial(_windows, engine, many, params)) for name, engine in engines.items()}
    if plain is not None:
        inputs = [plain.input_of(table) for table in many]
        contenders[PLAIN] = Contender(lambda: [plain.call(data, params) for data in inputs])
    try:
        return _rates(contenders, rows, after)
    finally:
        for engine in filter(None, (plain, *engines.values())):
            engine.close()


def _alone(table: Table) -> Iterator[Table]:
    """Each row of an example by itself, in the form in which the example was sent."""
    sent = table.sent
    if len(table) == 1 or (sent is not None and not isinstance(sent.value, Mapping)):
        yield table
        return
    for row in table.rows:
        cells = {name: [cell] for name, cell in zip(table.columns or (), row, strict=True)} if sent else None
        yield Table(table.columns, [row], sent and replace(sent, value=cells))


def _windows(engine: Engine, tables: Sequence[Table], params: Params) -> None:
    if not engine.spec.row_wise:
        for table in tables:
            predict_items(engine, [Request(table, params)])
        return
    items = [Row(table.columns, table.rows[0], params) for table in tables]
    for start in range(0, len(items), CALLERS):
        predict_items(engine, items[start : start + CALLERS])


def _rates(contenders: Mapping[str, Contender], rows: int, after: float = 0.0) -> dict[str, float]:
    turns = [contender for _ in range(ROUNDS) for contender in contenders.values()]
    for turn, contender in enumerate(turns, start=1):
        contender.run()
        completed(after + (1 - after) * turn / len(turns))
    return {name: round(rows / min(each.seconds[-ROUNDS:]), 1) for name, each in contenders.items()}


def _measure(task: Task, work: Path) -> dict[str, object]:  # noqa: ARG001
    return {**_timed(task), "pools": loaded_pools()}


def _timed(task: Task) -> dict[str, object]:
    bundle = open_bundle(task["bundle"])
    if not task["texts"]:
        example = read_example(bundle.model_path)
        return {"rates": compare(bundle, example, code=task["code"]), "differing": []}
    items: list[Item] = [Row(("text",), (text,)) for text in task["texts"]]
    engines = _engines(bundle, [entry for entry in bundle.manifest.engines if not runs_code(entry)])
    results = {name: predict_items(engine, items) for name, engine in engines.items()}  # this is also the warm-up
    exact = results.get("torch/fp32") or next(iter(results[name] for name in results if name.endswith("/fp32")), [])
    differing = [name for name, each in results.items() if not all(map(results_match, each, exact))]
    contenders = {name: Contender(partial(predict_items, engine, items)) for name, engine in engines.items()}
    rates = _rates(contenders, len(items))
    return {"rates": {name: rate for name, rate in rates.items() if name not in differing}, "differing": differing}


def _engines(bundle: Bundle, entries: Sequence[EngineEntry]) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    for entry in entries:
        try:
            engines[label(entry)] = open_entry(bundle, entry)
        except (MissingExtra, EngineUnavailable):  # an engine that cannot run here cannot be measured
            continue
    return engines


def compared(bundle: Bundle, example: Example | None, *, code: bool, after: float) -> dict[str, float]:
    """As `compare`; nothing if the model cannot be timed, because the bundle is complete without."""
    try:
        return compare(bundle, example, code=code, after=after)
    except Exception:  # noqa: BLE001  plain `load_model` may refuse what the bundle accepts
        return {}


if __name__ == "__main__":  # python -m likewise.builder.measure TASK RESULT
    run_task(_measure, *sys.argv[1:])
