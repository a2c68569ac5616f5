"""An engine kind in another package, for models of the flavor `toy`: a JSON object that maps texts to answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import RowRefused
from likewise.core.items import Item, Row
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.engine.kinds import CompiledEngines, CompileRequest, EngineKind, ModelFacts

COMPILED = "engine/toy/answers.json"


class ToyKind(EngineKind):
    """Compiles the table by converting its answers to upper case; does not need the model's code."""

    name = "toy"
    runs_code = False
    requirements = ("toy-engine",)
    library = "toy-engine"
    purpose = "run toy models"

    def takes(self, model: ModelFacts) -> bool:
        return "toy" in model.flavors

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        table = json.loads((bundle.model_path / str(request.model.flavors["toy"]["table"])).read_text())
        path = bundle.path / COMPILED
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({text: answer.upper() for text, answer in table.items()}))
        request.report(f"toy: {len(table)} answers")
        return CompiledEngines((EngineEntry(self.name, "exact"),))

    def open(self, bundle: Bundle, entry: EngineEntry) -> ToyEngine:
        return ToyEngine(json.loads((bundle.path / COMPILED).read_text()), entry)


class ToyEngine:
    """A `likewise.core.engine.Engine`."""

    def __init__(self, answers: Mapping[str, str], entry: EngineEntry) -> None:
        self._answers = answers
        self.spec = EngineSpec(entry.name, entry.precision, True, True, True, budget=64)

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work(item_key(item).hex(), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        return [self._predict(each.payload) for each in work]

    def close(self) -> None:
        pass

    def _predict(self, item: object) -> Result:
        text = item.values[0] if isinstance(item, Row) else None
        if text not in self._answers:
            return Failed(RowRefused(f"unknown text {text!r}", remedy="send a text from the model's table"))
        return Ok({"answer": self._answers[str(text)]})
