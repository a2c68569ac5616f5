"""Default texts for calibrating and measuring engines: the model's input example, and generated texts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from likewise.core.text import why_not_text
from likewise.engine.example import read_example
from likewise.engine.kinds import CalibrationTexts

SAMPLE = 64
MAX_TEXTS = 512  # used from a file, spread evenly over it; more if they have to prove an agreement
GENERATED = 192
SHORTEST = 4  # tokens
SEED = 20260101


def default_texts(model: Path, tokenizer: Path, longest: int) -> CalibrationTexts:
    """The input example of the MLflow model in the folder `model`, plus deterministic texts of SHORTEST to `longest`
    tokens, generated from the words of the vocabulary."""
    example = [text for text in _example(model) if why_not_text(text) is None]
    generated = generated_texts(tokenizer, longest)
    return CalibrationTexts(
        (*map(str, example), *generated), f"{len(example)} example texts, {len(generated)} generated texts", 3.0
    )


def sample(texts: CalibrationTexts) -> tuple[str, ...]:
    """At most SAMPLE of `texts`, spread evenly, for timing engines."""
    return tuple(spread(texts.values, SAMPLE))


def generated_texts(path: Path, longest: int) -> list[str]:
    """Deterministic texts of SHORTEST to `longest` tokens from the words of the tokenizer in `path`."""
    tokenizer = Tokenizer.from_file(str(path))
    words = [number for word, number in sorted(tokenizer.get_vocab().items()) if word.lstrip("Ġ▁").isalpha()]
    words = words or sorted(tokenizer.get_vocab().values())
    generator = random.Random(SEED)  # noqa: S311  the texts must be reproducible
    lengths = [SHORTEST * (longest / SHORTEST) ** (n / (GENERATED - 1)) for n in range(GENERATED)]
    choices = (generator.choices(words, k=max(1, math.ceil(length))) for length in lengths)
    return [str(tokenizer.decode(chosen))[: 20 * longest] for chosen in choices]


def _example(model: Path) -> Sequence[object]:
    example = read_example(model)
    if example is None:
        return []
    names = example.table.columns
    column = names.index("text") if names and "text" in names else 0
    return [row[column] for row in example.table.rows]


def spread(texts: Sequence[str], most: int) -> list[str]:
    """At most `most` of `texts`, evenly spaced."""
    step = max(1.0, len(texts) / most)
    return [texts[int(index * step)] for index in range(min(most, len(texts)))]
