"""A kind of engine for tests of what happens around an engine: it runs the example model `Upper` without MLflow.

Its processes start in a quarter of the time. Answers, trust and the files of the bundle are those of the pyfunc engine.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import yaml

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import ModelInvalid, ModelRaised, RowRefused
from likewise.core.items import Item, Row
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.engine.kinds import EngineKind


class PlainKind(EngineKind):
    """Only bundles that `tests.support.models` seals for it name it."""

    name = "plain"
    runs_code = True

    def open(self, bundle: Bundle, entry: EngineEntry) -> PlainEngine:
        known = yaml.safe_load((bundle.model_path / "MLmodel").read_text())["flavors"]["python_function"]
        model = runpy.run_path(str(bundle.model_path / known["model_code_path"]), run_name=self.name)["Upper"]()
        try:
            model.load_context(SimpleNamespace(model_config=known.get("config", {})))
        except Exception as error:
            raise ModelInvalid(f"the model does not load: {type(error).__name__}: {error}", remedy="mend it") from error
        return PlainEngine(model, bundle, entry)


class PlainEngine:
    """A `likewise.core.engine.Engine`, one call of the model a row."""

    def __init__(self, model: Any, bundle: Bundle, entry: EngineEntry) -> None:
        self.spec = EngineSpec(entry.name, entry.precision, True, False, False, budget=64, digest=bundle.digest)
        self._model = model

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [self._work(item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        return [self._answer(str(each.payload)) for each in work]

    def close(self) -> None:
        pass

    def _work(self, item: Item) -> Work | Failed:
        text = item.get("text") if isinstance(item, Row) else None
        if isinstance(text, str):
            return Work(item_key(item).hex(), 1, text)
        return Failed(RowRefused(f"column 'text' must be a string and is {text!r}", remedy="send a text"))

    def _answer(self, text: str) -> Result:
        try:
            answers = self._model.predict(None, {"text": [text]})
        except Exception as error:  # noqa: BLE001  the model's own
            return Failed(ModelRaised(f"the model raised {type(error).__name__}: {error}", remedy="mend the model"))
        return Ok((answers if isinstance(answers, list) else answers.to_dict("records"))[0])
