"""What transformers and sentence-transformers do around the computation of a model for texts; see `text.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from likewise.core.errors import BundleInvalid, RowRefused
from likewise.core.items import Params

METADATA = "text.json"
FORMAT = 1
STRATEGIES = ("longest_first", "only_first", "only_second", "do_not_truncate")
FUNCTIONS = ("softmax", "sigmoid", "none")
PADDINGS = (True, False, "longest", "do_not_pad")
PARAMS_REMEDY = "correct the param, or leave it out"

Texts = Sequence[str | tuple[str, str]]
"""Texts, and pairs of texts."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """Texts are cut to `tokens` tokens, including special ones."""

    tokens: int
    strategy: str


@dataclass(frozen=True, slots=True)
class Options:
    """What a request's params decide.  truncation: None for whole texts.  prompt: precedes each text.

    The others are of classifiers (`ranked`: the best `top_k` labels, else the best one by itself) and of encoders.
    """

    truncation: Truncation | None
    prompt: str = ""
    function: str = ""
    ranked: bool = False
    top_k: int | None = None
    dimensions: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class TextModel:
    """Base class: how texts are tokenized.

    max_tokens: of the tokenizer; None if it has no limit.  side: from which texts are truncated.  defaults: params of
    the logged model.
    """

    task: ClassVar[str]
    known: ClassVar[frozenset[str]]

    max_tokens: int | None
    side: str
    defaults: Mapping[str, object] = field(default_factory=dict)

    def options(self, params: Params) -> Options:
        """The options of a request with `params`; raises RowRefused for params that the libraries would not accept."""
        given = {**self.defaults, **(params or {})}
        if unknown := sorted(given.keys() - self.known):
            raise _refused(unknown[0], "a param of this engine", given[unknown[0]])
        return self._options(given)

    def predictions(self, outputs: NDArray[np.float32], options: Options) -> list[object]:
        """One prediction per row of `outputs`, as MLflow returns it."""
        raise NotImplementedError

    def _options(self, given: Mapping[str, object]) -> Options:
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Write `text.json` into `folder`."""
        text = json.dumps({"format": FORMAT, "task": self.task, **asdict(self)}, indent=2, sort_keys=True)
        (folder / METADATA).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Classifier(TextModel):
    """A text classification pipeline.  labels: of the logits, in order.  function: from logits to scores.

    Source: transformers/pipelines/text_classification.py, `postprocess`, and MLflow's wrapper around it.
    """

    task = "text-classification"
    known = frozenset({"top_k", "function_to_apply", "truncation", "max_length", "padding", "batch_size"})

    labels: tuple[str, ...] = ()
    function: str = "softmax"

    def _options(self, given: Mapping[str, object]) -> Options:
        function, top_k = given.get("function_to_apply"), given.get("top_k", "")
        if function is not None and str(function).lower() not in FUNCTIONS:
            raise _refused("function_to_apply", f"one of {', '.join(FUNCTIONS)}", function)
        ranked = top_k is None or isinstance(top_k, int)
        return Options(
            self._truncation(given),
            function=self.function if function is None else str(function).lower(),
            ranked=ranked,
            top_k=top_k if isinstance(top_k, int) else None,
        )

    def _truncation(self, given: Mapping[str, object]) -> Truncation | None:
        """Source: transformers/tokenization_utils_base.py, `_get_padding_truncation_strategies`."""
        wanted, tokens, padding = given.get("truncation"), given.get("max_length"), given.get("padding", False)
        if padding not in PADDINGS:  # "max_length" would move the positions of a text that is padded on the left
            raise _refused("padding", f"one of {', '.join(map(str, PADDINGS))}", padding)
        if wanted is None and tokens is not None and padding is False:
            wanted = True
        strategy = "longest_first" if wanted is True else "do_not_truncate" if wanted in (None, False) else wanted
        if strategy not in STRATEGIES:
            raise _refused("truncation", f"true, false, or one of {', '.join(STRATEGIES)}", wanted)
        if tokens is None:
            tokens = self.max_tokens
        if strategy == "do_not_truncate" or tokens is None:
            return None
        if not isinstance(tokens, int) or tokens < 1:
            raise _refused("max_length", "a number of tokens", tokens)
        return Truncation(tokens, str(strategy))

    def predictions(self, outputs: NDArray[np.float32], options: Options) -> list[object]:
        scores = _scores(outputs, options.function)
        if not options.ranked:
            best = scores.argmax(axis=1)
            return [{"label": self.labels[at], "score": float(row[at])} for at, row in zip(best, scores, strict=True)]
        order = np.argsort(-scores, axis=1, kind="stable")
        return [
            {
                str(place): {"label": self.labels[at], "score": float(row[at])}
                for place, at in enumerate(ranks[: options.top_k])
            }
            for ranks, row in zip(order.tolist(), scores, strict=True)
        ]


@dataclass(frozen=True)
class Encoder(TextModel):
    """A model of sentence-transformers.  prompts: by name.  prompt: the default one.  dimensions: of the vectors, if
    they are truncated.

    Source: sentence_transformers/sentence_transformer/model.py, `encode`.
    """

    task = "embedding"
    known = frozenset({
        "batch_size", "show_progress_bar", "normalize_embeddings", "truncate_dim", "prompt", "prompt_name",
    })  # fmt: skip

    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    dimensions: int | None = None

    def _options(self, given: Mapping[str, object]) -> Options:
        prompt, name, dimensions = (given.get(key) for key in ("prompt", "prompt_name", "truncate_dim"))
        if prompt is None and name is not None and name not in self.prompts:
            raise _refused("prompt_name", f"one of {', '.join(self.prompts) or 'none'}", name)
        if prompt is None:
            prompt = self.prompt if name is None else self.prompts[str(name)]
        if dimensions is None:
            dimensions = self.dimensions
        elif not isinstance(dimensions, int) or dimensions < 1:
            raise _refused("truncate_dim", "a number of dimensions", dimensions)
        truncation = None if self.max_tokens is None else Truncation(self.max_tokens, "longest_first")
        return Options(
            truncation, str(prompt), dimensions=dimensions, normalize=given.get("normalize_embeddings") is True
        )

    def predictions(self, outputs: NDArray[np.float32], options: Options) -> list[object]:
        vectors = outputs[:, : options.dimensions]
        if options.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return list(vectors.tolist())


def read_text_model(folder: Path) -> TextModel:
    """Read `text.json` from `folder`; raises BundleInvalid if it is missing or in an unsupported format."""
    try:
        raw: dict[str, Any] = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        if raw.pop("format") != FORMAT:
            raise ValueError(f"not format {FORMAT}")
        if raw.pop("task") == Encoder.task:
            return Encoder(**raw)
        return Classifier(labels=tuple(map(str, raw.pop("labels"))), **raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleInvalid(
            f"{folder / METADATA} is not valid: {error}",
            remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
        ) from error


def _scores(logits: NDArray[np.float32], function: str) -> NDArray[np.float32]:
    if function == "softmax":
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-logits))) if function == "sigmoid" else logits


def _refused(name: str, expected: str, got: object) -> RowRefused:
    return RowRefused(f"params.{name}: expected {expected}, got {got!r:.100}", remedy=PARAMS_REMEDY)
