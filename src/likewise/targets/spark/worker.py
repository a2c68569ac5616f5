"""The engine in a Spark worker: one a Python process, whatever runs there and however often."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from likewise.batch.result_cache import ResultCache
from likewise.batch.scorer import Scorer, prepare
from likewise.bundles.open import open_bundle
from likewise.core.engine import Engine, Work
from likewise.core.extras import need
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine

REMEMBERED = 16 << 20  # bytes of answers a process


def task_scorer(engine: Engine, *, budget: int | None = None) -> Scorer:
    """A scorer of one task, which knows the answers of the process's earlier tasks."""
    answers = _memories.setdefault(id(engine), ResultCache(REMEMBERED))
    return Scorer(engine, budget=budget, cache=answers, whole=False)


_lock = threading.Lock()
_engines: dict[tuple[str, ModelSpec], Engine] = {}  # kept for the process's life, and so are their ids
_memories: dict[int, ResultCache] = {}


def engine_of(key: str, model: ModelSpec, folder: str | None) -> Engine:
    """The process's engine for `model`, opened by the first task that asks.

    key: digest of the bundle's manifest, engines included; folder: where the bundle lies here, unless in the model's.
    Raises what `open_bundle` and `open_engine` raise.
    """
    with _lock:
        if (key, model) not in _engines:
            if model.trust:
                _keep_text_out_of_pyarrow()
            _engines[key, model] = open_engine(open_bundle(folder or model.folder), model)
        return _engines[key, model]


def _keep_text_out_of_pyarrow() -> None:
    """Tell pandas to keep text in Python's objects where PyArrow gives no NumPy arrays.

    PyArrow looks for NumPy when it is loaded, and Spark loads it before our environment has brought NumPy.
    """
    if importlib.util.find_spec("pandas") is None:
        return
    try:
        need("pyarrow", extra="batch").array([0]).to_numpy()
    except ImportError:
        need("pandas", extra="mlflow").set_option("mode.string_storage", "python")


def answered(engine: Engine, windows: Iterator[tuple[Any, list[Item | Failed]]]) -> Iterator[tuple[Any, list[Result]]]:
    """Each window's tag with one result an item; the next window is prepared beside the engine's compute.

    At most two windows are alive. Where `prepare` is not worth a thread, one.
    """
    scorer = task_scorer(engine)
    if not engine.spec.overlaps:
        for tag, items in windows:
            yield tag, scorer.score(prepare(engine, items))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="likewise-prepare") as pool:
        before: tuple[Any, Future[list[Work | Failed]]] | None = None
        for tag, items in windows:
            coming = (tag, pool.submit(prepare, engine, items))
            if before is not None:
                yield before[0], scorer.score(before[1].result())
            before = coming
        if before is not None:
            yield before[0], scorer.score(before[1].result())
