"""The declared pipeline as an engine: the model's own steps, and none of its Python code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from likewise.core.cores import usable_threads
from likewise.core.digests import sha256_json
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import EngineUnavailable, RowRefused
from likewise.core.isolation import isolate
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.engine.text.compiled import PART, Calibration, Compiled, open_compiled, place
from likewise.engine.text.engine import BUDGET, TextEngine
from likewise.pipeline.pipeline import TEXT_REMEDY, Pipeline, classifiers, why_not_text

if TYPE_CHECKING:
    from likewise.bundles.format import EngineEntry
    from likewise.bundles.open import Bundle


class PipelineEngine:
    """A `core.engine.Engine`. One `Row` with a string `text` in; `Ok({"text": answer})` out.

    A row that is no text, or that a step refuses, is `Failed(RowRefused)`, and its mates are answered.
    """

    def __init__(
        self,
        declaration: Mapping[str, object],
        *,
        resolve: Callable[[str], Path],
        digest: str = "",
        name: str = "torch",
        precision: str = "fp32",
        open_text: Callable[[str, int], TextEngine] | None = None,
        budget: int = BUDGET,
        lanes: int = 1,
    ) -> None:
        """`declaration` as the bundle's manifest has it; `resolve` maps a reference's URI to where it lies.

        open_text: opens classifiers in the runtime `name`; without it that is torch.  budget: tokens that one run does
        best with; lanes: runs that go on at once, each on a core of its own.
        Raises CodeNotTrusted where a step is not built in, ModelInvalid where a reference is no text classifier.
        """
        self._pipeline = Pipeline.from_declaration(declaration).open(resolve, open_text=open_text)
        self._spec = EngineSpec(
            name=name,
            precision=precision,
            row_wise=True,
            thread_safe=True,
            pure=True,
            budget=budget,
            digest=digest,
            slots=lanes,
            overlaps=True,
        )

    @classmethod
    def load(cls, bundle: Bundle, entry: EngineEntry) -> PipelineEngine:
        """The engine `entry` of `bundle`: the classifiers as they were logged, in torch, or compiled, in OpenVINO.

        Raises EngineUnavailable where the manifest declares no pipeline or this CPU cannot run it, MissingExtra.
        """
        declaration = bundle.manifest.pipeline
        if declaration is None:
            raise EngineUnavailable(
                f"the bundle {bundle.path} declares no pipeline", remedy="use its engine 'pyfunc', with --trust"
            )
        digest = sha256_json({"bundle": bundle.digest, "engine": entry.digest})  # weights and instructions
        name, precision = entry.name, entry.precision
        make = partial(cls, declaration, resolve=bundle.resolve, digest=digest, name=name, precision=precision)
        if name != "openvino":
            return make()

        def open_text(uri: str, max_length: int) -> TextEngine:
            return open_compiled(bundle.path / place(uri), precision=precision, max_length=max_length)

        return make(open_text=open_text, budget=PART, lanes=usable_threads())

    @property
    def spec(self) -> EngineSpec:
        """Row-wise, pure and thread safe."""
        return self._spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """Language and tokens of each text."""
        texts = [_text(item) for item in items]
        good = [text for text in texts if isinstance(text, str)]
        works = iter(isolate(self._works, good))
        return [text if isinstance(text, Failed) else _work(next(works)) for text in texts]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """The forward passes and what follows them, of works of any callers together."""
        return isolate(self._answers, work)

    def close(self) -> None:
        """Nothing is held but memory."""

    def _works(self, texts: Sequence[str]) -> list[Result]:
        rows = self._pipeline.prepare({"text": texts})
        costs = rows.get("tokens", [1] * len(texts))
        return [
            Ok(Work(_key(text), max(1, cost), {column: values[place] for column, values in rows.items()}))
            for place, (text, cost) in enumerate(zip(texts, costs, strict=True))
        ]

    def _answers(self, work: Sequence[Work]) -> list[Result]:
        payloads = [cast("dict[str, Any]", each.payload) for each in work]
        rows = {column: [payload[column] for payload in payloads] for column in payloads[0]}
        return [Ok({"text": answer}) for answer in self._pipeline.run(rows)]


def calibrations(bundle: Bundle) -> dict[str, Calibration]:
    """By model URI, what was found when the bundle's compiled classifiers were calibrated; nothing where none are."""
    if not any(entry.name == "openvino" for entry in bundle.manifest.engines):
        return {}
    held = {uri: Compiled.read(bundle.path / place(uri)) for uri in classifiers(bundle.manifest.pipeline)}
    return {uri: each.calibration for uri, each in held.items() if each.calibration is not None}


def _text(item: Item) -> str | Failed:
    if not isinstance(item, Row):
        return Failed(RowRefused("a whole request, where this engine takes rows", remedy=TEXT_REMEDY))
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
