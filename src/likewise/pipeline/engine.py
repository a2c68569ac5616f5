"""The engine for declared pipelines, which runs the model's steps but none of its Python code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from likewise.core.cores import usable_threads
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import EngineUnavailable, RowRefused
from likewise.core.isolation import isolate
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.text import why_not_text
from likewise.engine.openvino_graph import PART
from likewise.engine.text.compiled import Calibration, Compiled, classifier_path, open_compiled
from likewise.engine.text.engine import BUDGET, TextEngine
from likewise.pipeline.pipeline import TEXT_REMEDY, Pipeline, classifiers

if TYPE_CHECKING:
    from likewise.bundles.format import EngineEntry
    from likewise.bundles.open import Bundle


class PipelineEngine:
    """A `core.engine.Engine` that takes `Row`s with a string `text` and returns `Ok({"text": answer})`.

    A row that is not a text, or that a step refuses, becomes `Failed(RowRefused)`; other rows are not affected.
    """

    def __init__(
        self,
        declaration: Mapping[str, object],
        *,
        resolve: Callable[[str], Path],
        name: str = "torch",
        precision: str = "fp32",
        open_text: Callable[[str, int], TextEngine] | None = None,
        budget: int = BUDGET,
        lanes: int = 1,
    ) -> None:
        """declaration: from the bundle's manifest.  resolve: maps a reference's URI to its local path.

        open_text: opens a classifier in the runtime `name`; torch by default.  budget: the number of tokens per run
        that is fastest.  lanes: the number of concurrent runs, each on its own core.
        Raises CodeNotTrusted if a step is not built in, ModelInvalid if a reference is not a text classifier.
        """
        self._pipeline = Pipeline.from_declaration(declaration).open(resolve, open_text=open_text)
        self._spec = EngineSpec(
            name=name,
            precision=precision,
            row_wise=True,
            thread_safe=True,
            pure=True,
            budget=budget,
            slots=lanes,
            overlaps=True,
        )

    @classmethod
    def load(cls, bundle: Bundle, entry: EngineEntry) -> PipelineEngine:
        """Load the engine `entry` of `bundle`: the logged classifiers in torch, or the compiled ones in OpenVINO.

        Raises EngineUnavailable if the manifest declares no pipeline or this CPU cannot run it, MissingExtra.
        """
        declaration = bundle.manifest.pipeline
        if declaration is None:
            raise EngineUnavailable(
                f"the bundle {bundle.path} declares no pipeline", remedy="use its engine 'pyfunc', with --trust"
            )
        name, precision = entry.name, entry.precision
        create = partial(cls, declaration, resolve=bundle.resolve, name=name, precision=precision)
        if name != "openvino":
            return create()

        def open_text(uri: str, max_length: int) -> TextEngine:
            return open_compiled(bundle.path / classifier_path(uri), precision=precision, max_length=max_length)

        return create(open_text=open_text, budget=PART, lanes=usable_threads())

    @property
    def spec(self) -> EngineSpec:
        """The engine's properties: row-wise, pure and thread-safe."""
        return self._spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One entry per item, with the columns of the pipeline's first phase as payload."""
        texts = [_text(item) for item in items]
        valid = [text for text in texts if isinstance(text, str)]
        works = iter(isolate(self._works, valid))
        return [text if isinstance(text, Failed) else _work(next(works)) for text in texts]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, from the pipeline's second phase."""
        return isolate(self._results, work)

    def trace(self, text: str) -> list[dict[str, object]]:
        """What each step adds to a text, see `Pipeline.trace`."""
        return self._pipeline.trace(text)

    def close(self) -> None:
        """Does nothing: the engine only uses memory."""

    def _works(self, texts: Sequence[str]) -> list[Result]:
        rows = self._pipeline.prepare({"text": texts})
        costs = rows.get("tokens", [1] * len(texts))
        return [
            Ok(Work(_key(text), max(1, cost), {column: values[index] for column, values in rows.items()}))
            for index, (text, cost) in enumerate(zip(texts, costs, strict=True))
        ]

    def _results(self, work: Sequence[Work]) -> list[Result]:
        payloads = [cast("dict[str, Any]", each.payload) for each in work]
        rows = {column: [payload[column] for payload in payloads] for column in payloads[0]}
        return [Ok({"text": answer}) for answer in self._pipeline.run(rows)]


def calibrations(bundle: Bundle) -> dict[str, Calibration]:
    """The calibrations of the bundle's compiled classifiers, by model URI; empty if there are none."""
    if not any(entry.name == "openvino" for entry in bundle.manifest.engines):
        return {}
    models = classifiers(bundle.manifest.pipeline)
    compiled = {uri: Compiled.read(bundle.path / classifier_path(uri)) for uri in models}
    return {uri: each.calibration for uri, each in compiled.items() if each.calibration is not None}


def _text(item: Item) -> str | Failed:
    if not isinstance(item, Row):
        return Failed(RowRefused("this engine accepts rows, not whole requests", remedy=TEXT_REMEDY))
    try:
        value = item.get("text") if item.columns is not None else item.values[0]
    except KeyError:
        return Failed(RowRefused("the column 'text' is missing", remedy=TEXT_REMEDY))
    why = why_not_text(value)
    return str(value) if why is None else Failed(RowRefused(why, remedy=TEXT_REMEDY))


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _work(result: Result) -> Work | Failed:
    return result if isinstance(result, Failed) else cast("Work", result.value)
