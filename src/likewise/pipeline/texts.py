"""The texts that engines are calibrated and measured on where the user gives none: the model's example, and made up."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from likewise.engine.example import read_example
from likewise.engine.kinds import CalibrationTexts
from likewise.pipeline.pipeline import why_not_text

SAMPLE = 64
MADE_UP = 192
SHORTEST = 4  # tokens
SEED = 20260101


def made_texts(model: Path, tokenizer: Path, longest: int) -> CalibrationTexts:
    """The example of the MLflow model in the folder `model`, and texts of SHORTEST to `longest` tokens made of words
    of the vocabulary; the same ones every time."""
    example = [text for text in _example(model) if why_not_text(text) is None]
    invented = _made_up(Tokenizer.from_file(str(tokenizer)), longest)
    return CalibrationTexts(
        (*map(str, example), *invented), f"{len(example)} of the example, {len(invented)} made up", 3.0
    )


def sample(texts: CalibrationTexts) -> tuple[str, ...]:
    """At most SAMPLE of `texts`, spread evenly: what engines are timed on."""
    return tuple(spread(texts.values, SAMPLE))


def _made_up(tokenizer: Tokenizer, longest: int) -> list[str]:
    words = [number for word, number in sorted(tokenizer.get_vocab().items()) if word.lstrip("Ġ▁").isalpha()]
    words = words or sorted(tokenizer.get_vocab().values())
    chance = random.Random(SEED)  # noqa: S311  the same texts for everyone is what is wanted
    steps = [SHORTEST * (longest / SHORTEST) ** (n / (MADE_UP - 1)) for n in range(MADE_UP)]
    return [str(tokenizer.decode(chance.choices(words, k=max(1, math.ceil(step)))))[: 20 * longest] for step in steps]


def _example(model: Path) -> Sequence[object]:
    example = read_example(model)
    if example is None:
        return []
    names = example.table.columns
    at = names.index("text") if names and "text" in names else 0
    return [row[at] for row in example.table.rows]


def spread(texts: Sequence[str], most: int) -> list[str]:
    """At most so many of `texts`, evenly over them."""
    step = max(1.0, len(texts) / most)
    return [texts[int(place * step)] for place in range(min(most, len(texts)))]
