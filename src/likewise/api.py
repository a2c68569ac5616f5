"""`import likewise`: the library, which the command line is a thin layer over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likewise.bundle.open import Bundle as StoredBundle
from likewise.bundle.open import is_bundle
from likewise.bundle.open import open_bundle as open_stored
from likewise.bundle.trust import Trust
from likewise.core.engine import Engine
from likewise.core.items import Item, Request, Table
from likewise.core.results import Failed, Result
from likewise.engine.load import open_engine

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[str], None]


@dataclass(frozen=True)
class Bundle(StoredBundle):
    """A verified bundle that can answer."""

    trust: Trust = field(default_factory=Trust, repr=False)

    def engine(self, name: str | None = None) -> Engine:
        """Load the engine `name`, or the best one that runs here; the caller closes it."""
        return open_engine(self, name, trust=self.trust)

    def predict(self, data: pd.DataFrame, params: Mapping[str, object] | None = None) -> Any:
        """What `mlflow.pyfunc.load_model(…).predict(data, params)` answers, from the bundle's best engine.

        data: one row an item. Returns a frame where the model's records have columns, else a list of one value a row.
        Raises the first failed row's error.  The engine is loaded at the first call and kept.
        """
        engine = _kept(self)
        columns = tuple(str(c) for c in data.columns)
        table = Table(columns, list(data.itertuples(index=False, name=None)))
        items: list[Item] = list(table.split(params or {})) if engine.spec.row_wise else [Request(table, params or {})]
        results = answers(engine, items)
        values = [_value(result) for result in results]
        predictions = values if engine.spec.row_wise else values[0]
        return _like_a_frame(predictions, data)


_engines: dict[str, Engine] = {}


def _kept(bundle: Bundle) -> Engine:
    key = f"{bundle.path.resolve()} {bundle.digest}"
    if key not in _engines:
        _engines[key] = bundle.engine()
    return _engines[key]


def answers(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """One result an item, in order: prepare, then run what could be prepared."""
    prepared = engine.prepare(items)
    ran = iter(engine.run([work for work in prepared if not isinstance(work, Failed)]))
    return [work if isinstance(work, Failed) else next(ran) for work in prepared]


def _value(result: Result) -> object:
    if isinstance(result, Failed):
        raise result.error
    return result.value


def _like_a_frame(predictions: object, data: pd.DataFrame) -> Any:
    if isinstance(predictions, list) and predictions and all(isinstance(p, dict) for p in predictions):
        return type(data)(predictions, index=data.index if len(predictions) == len(data) else None)
    return predictions
