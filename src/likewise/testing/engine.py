"""An engine that needs no library, for tests of what surrounds an engine: it starts at once."""

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
    """A model that is one Python file, `model/model.py`, with `load()` and `predict(text)`."""

    name = "testing"

    def takes(self, model: ModelFacts) -> bool:
        """No logged model: `likewise.testing.models` makes the bundles."""
        return False

    def open(self, bundle: Bundle, entry: EngineEntry) -> PythonFileEngine:
        """Run the file, and its `load()`; ModelInvalid with what they raise."""
        try:
            module = runpy.run_path(str(bundle.model_path / MODEL))
            module["load"]()
        except Exception as error:
            raise ModelInvalid(
                f"the model does not load: {type(error).__name__}: {error}", remedy=f"correct its {MODEL}"
            ) from error
        spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=True,
            thread_safe=False,
            pure=False,
            budget=256,
            digest=entry.digest,
        )
        return PythonFileEngine(module["predict"], spec)


class PythonFileEngine:
    """The loaded file; it is called with the first value of each row."""

    def __init__(self, predict: Callable[[object], object], spec: EngineSpec) -> None:
        self._predict = predict
        self.spec = spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """Every item is accepted."""
        return [Work(item_key(item).hex(), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result a work; a row for which the file raises fails alone."""
        return isolate(self._answer, [each.payload for each in work])

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, items: Sequence[object]) -> list[Result]:
        return [Ok(self._predict(item.values[0])) for item in items if isinstance(item, Row)]
