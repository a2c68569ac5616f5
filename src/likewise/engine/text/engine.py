"""The text classification engine: tokenization, windows, forward pass and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from likewise.core.errors import ModelInvalid
from likewise.core.windows import windows
from likewise.engine.text.checkpoint import REMEDY, Checkpoint, find_checkpoint
from likewise.engine.text.torch_forward import Forward, open_torch

BUDGET = 1024
"""Padded tokens per forward pass."""

TOKENIZER_BATCH = 256
"""Texts per tokenizer call: enough for all cores; limited because its encodings need far more memory than the ids."""


Encoding = NDArray[np.int32]
"""The token ids of one text: at least one, with special tokens, truncated, not padded. Small: jobs keep thousands."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most likely label and its softmax probability."""

    label: str
    score: float


class TextEngine:
    """A sequence classifier. All methods are thread-safe."""

    def __init__(
        self, tokenizer: Tokenizer, forward: Forward, labels: Sequence[str], *, pad_id: int = 0, budget: int = BUDGET
    ) -> None:
        self._tokenizer = tokenizer
        self._forward = forward
        self._pad_id = pad_id
        self._budget = budget
        self.labels = tuple(labels)

    @classmethod
    def open(
        cls, folder: Path, *, max_length: int = 256, open_forward: Callable[[Checkpoint], Forward] = open_torch
    ) -> TextEngine:
        """Open the classifier in `folder`; texts are truncated to `max_length` tokens, or to the model's own limit.

        Raises ModelInvalid if the folder does not contain a supported classifier.
        """
        checkpoint = find_checkpoint(folder)
        return cls.of(checkpoint, open_forward(checkpoint), max_length=max_length)

    @classmethod
    def of(cls, checkpoint: Checkpoint, forward: Forward, *, max_length: int, budget: int = BUDGET) -> TextEngine:
        """A classifier with the given files and forward pass; raises what `open` does."""
        tokenizer = read_tokenizer(checkpoint.tokenizer, remedy=REMEDY)
        tokenizer.no_padding()  # overrides the file: padding is done per window
        tokenizer.enable_truncation(min(max_length, checkpoint.max_tokens))
        return cls(tokenizer, forward, checkpoint.labels, pad_id=checkpoint.pad_id, budget=budget)

    def prepare(self, texts: Sequence[str]) -> list[Encoding]:
        """One encoding per text. Texts must be encodable as UTF-8."""
        encoded = encode(self._tokenizer, texts)
        return [np.array(each.ids or [self._pad_id], dtype=np.int32) for each in encoded]

    def run(self, encodings: Sequence[Encoding], *, budget: int | None = None) -> list[Prediction]:
        """One prediction per encoding, in order, computed in windows of similar lengths within `budget` tokens."""
        logits = self.logits(encodings, budget=budget)
        odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        scores = odds.max(axis=1) / odds.sum(axis=1)
        best = logits.argmax(axis=1)
        return [Prediction(self.labels[label], float(score)) for label, score in zip(best, scores, strict=True)]

    def logits(self, encodings: Sequence[Encoding], *, budget: int | None = None) -> NDArray[np.float32]:
        """The logits that `run` predicts from, [encodings, labels], for comparing runtimes."""
        logits = np.empty((len(encodings), len(self.labels)), dtype=np.float32)
        for window in windows(list(map(len, encodings)), budget or self._budget):
            logits[window] = self._forward(*self._pad([encodings[index] for index in window]))
        return logits

    def _pad(self, encodings: Sequence[Encoding]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shape = (len(encodings), max(map(len, encodings)))
        ids, mask = np.full(shape, self._pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, each in enumerate(encodings):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        return ids, mask


def encode(tokenizer: Tokenizer, texts: Sequence[Any]) -> Iterator[Any]:
    """The encoding of each text, or pair of texts, as `tokenizers` returns it."""
    for start in range(0, len(texts), TOKENIZER_BATCH):
        yield from tokenizer.encode_batch_fast(list(texts[start : start + TOKENIZER_BATCH]))


def read_tokenizer(path: Path, *, remedy: str) -> Tokenizer:
    """The tokenizer in the file `path`; raises ModelInvalid with `remedy`."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no exception class
        raise ModelInvalid(f"{path}: not a valid tokenizer: {error}", remedy=remedy) from error
