"""The engine in a Spark worker: one per model and Python process, shared by all tasks of that process."""

from __future__ import annotations

import importlib.util
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from likewise.batch.distributed.tasks import task_scorer
from likewise.batch.scorer import prepare
from likewise.bundles.open import Bundle, open_exactly
from likewise.core.engine import Engine, Work
from likewise.core.extras import need
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.spec import ModelSpec
from likewise.engine.load import allowed_engines, open_engine, require_versions
from likewise.engine.pyfunc import PyfuncEngine, PyfuncKind
from likewise.targets.spark.answers import answers


@dataclass(frozen=True, slots=True)
class Loading:
    """How a UDF or a frame loads and calls its model; workers share an engine only among equal ones.

    env: environment variables, by name.  config: pickled `model_config` of `mlflow.pyfunc.load_model`, empty for none.
    typed: whether a pyfunc's predictions are `Answer`s, with the model's own types, instead of plain values.
    """

    env: tuple[tuple[str, str], ...] = ()
    config: bytes = b""
    typed: bool = False


PLAIN = Loading()
_lock = threading.Lock()
_engines: dict[tuple[str, ModelSpec, Loading], Engine] = {}  # never removed, so that ids stay unique


def engine_of(key: str, model: ModelSpec, folder: str | None, loading: Loading = PLAIN) -> Engine:
    """The process's engine for `model`, opened by the first task that needs it, in `environment_of(loading)`.

    key: the build digest, without its prefix; folder: the bundle's folder on this host, None for the
    model's own folder.
    Raises what `open_exactly` and `open_engine` raise.
    """
    with _lock:
        if (key, model, loading) not in _engines:
            if model.trust:
                _keep_text_out_of_pyarrow()
            _engines[key, model, loading] = _opened(open_exactly(model, folder), model, loading)
        return _engines[key, model, loading]


def _opened(bundle: Bundle, model: ModelSpec, loading: Loading) -> Engine:
    if loading.config:  # the driver has chosen this engine
        entry = allowed_engines(bundle.manifest, model)[0]
        require_versions(bundle, entry, allow=model.allow_versions)
        engine: Engine = PyfuncKind().open(bundle, entry, pickle.loads(loading.config))  # noqa: S301  the driver's
    else:
        engine = open_engine(bundle, model)
    if loading.typed and isinstance(engine, PyfuncEngine):
        engine.per_row = answers
    return engine


@contextmanager
def environment_of(loading: Loading) -> Iterator[None]:
    """Set the environment variables of `loading`, and restore the earlier ones at the end."""
    before = {name: os.environ.get(name) for name, _ in loading.env}
    os.environ.update(loading.env)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _keep_text_out_of_pyarrow() -> None:
    """Make pandas store text as Python objects if PyArrow cannot create NumPy arrays.

    PyArrow looks for NumPy on import, and Spark imports PyArrow before the shipped environment provides NumPy.
    """
    if importlib.util.find_spec("pandas") is None:
        return
    try:
        need("pyarrow", extra="batch").array([0]).to_numpy()
    except ImportError:
        need("pandas", extra="mlflow").set_option("mode.string_storage", "python")


def score_windows(
    engine: Engine, windows: Iterator[tuple[Any, list[Item | Failed]]]
) -> Iterator[tuple[Any, list[Result]]]:
    """Each window's tag with one result per item; the next window is prepared while the engine computes.

    At most two windows are in memory; one if preparing in a thread is not worthwhile for the engine.
    """
    scorer = task_scorer(engine)
    if not engine.spec.overlaps:
        for tag, items in windows:
            yield tag, scorer.score(prepare(engine, items))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="likewise-prepare") as pool:
        previous: tuple[Any, Future[list[Work | Failed]]] | None = None
        for tag, items in windows:
            current = (tag, pool.submit(prepare, engine, items))
            if previous is not None:
                yield previous[0], scorer.score(previous[1].result())
            previous = current
        if previous is not None:
            yield previous[0], scorer.score(previous[1].result())
