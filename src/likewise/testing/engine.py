"""An engine without third-party libraries that starts immediately, for tests of everything around an engine."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import ModelInvalid
from likewise.core.isolation import isolate
from likewise.core.items import Item, Row
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.engine.kinds import EngineKind, ModelFacts

MODEL = "model.py"


class PythonFileKind(EngineKind):
    """An engine for models that consist of one Python file, `model/model.py`, with `load()` and `predict(text)`."""

    name = "testing"

    def takes(self, model: ModelFacts) -> bool:
        """Always False: its bundles are created by `likewise.testing.models`, never from a logged model."""
        return False

    def open(self, bundle: Bundle, entry: EngineEntry) -> PythonFileEngine:
        """Run the file and its `load()`.  Raises ModelInvalid with the message of their exception."""
        try:
            module = runpy.run_path(str(bundle.model_path / MODEL))
            module["load"]()
        except Exception as error:
            raise ModelInvalid(
                f"the model failed to load: {type(error).__name__}: {error}", remedy=f"correct its {MODEL}"
            ) from error
        spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=True,
            thread_safe=False,
            pure=False,
            budget=256,
        )
        return PythonFileEngine(module["predict"], spec)


class PythonFileEngine:
    """The loaded file; its `predict` is called with the first value of each row."""

    def __init__(self, predict: Callable[[object], object], spec: EngineSpec) -> None:
        self._predict = predict
        self.spec = spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One unit of work per item; every item is accepted."""
        return [Work(item_key(item).hex(), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per unit of work; an exception in `predict` fails only its own row."""
        return isolate(self._predict_items, [each.payload for each in work])

    def close(self) -> None:
        """Does nothing: there are no resources to release."""

    def _predict_items(self, items: Sequence[object]) -> list[Result]:
        return [Ok(self._predict(item.values[0])) for item in items if isinstance(item, Row)]
