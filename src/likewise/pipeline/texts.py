"""The texts that engines are calibrated and measured on: the user's, or the model's example and texts made up."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from likewise.core.errors import InputInvalid, InputNotFound
from likewise.core.extras import need
from likewise.engine.example import read_example
from likewise.engine.kinds import CalibrationTexts
from likewise.pipeline.pipeline import why_not_text

MOST = 512  # texts that are used of a file, spread evenly over it
SAMPLE = 64
MADE_UP = 192
SHORTEST = 4  # tokens
SEED = 20260101


def given_texts(path: Path, column: str) -> CalibrationTexts:
    """Texts of the file `path`: `column`, or the only column that it has.

    Raises InputNotFound, InputInvalid (no such column, no text in it, not the format that its suffix says).
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputInvalid(f"{path}: not a format that is read here", remedy=f"give one of {', '.join(_READERS)}")
    try:
        texts = [row for row in reader(path, column) if isinstance(row, str) and why_not_text(row) is None]
    except OSError as error:
        raise InputNotFound(f"{path} cannot be read: {error.strerror}", remedy="check the path") from error
    except (ValueError, csv.Error) as error:
        raise InputInvalid(f"{path}: {error}", remedy="mend the file, or give another") from error
    if not texts:
        raise InputInvalid(f"{path}: no text in its column {column!r}", remedy="--calibration-column NAME")
    return CalibrationTexts(tuple(_spread(texts, MOST)), f"{path.name}, {len(texts):,} texts", 1.5)


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
    return tuple(_spread(texts.values, SAMPLE))


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


def _spread(texts: Sequence[str], most: int) -> list[str]:
    step = max(1.0, len(texts) / most)
    return [texts[int(place * step)] for place in range(min(most, len(texts)))]


def _csv(path: Path, column: str) -> Iterator[object]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, strict=True)
        name = _column(rows.fieldnames or (), column)
        for row in rows:
            yield row[name]


def _json_lines(path: Path, column: str) -> Iterator[object]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(filter(str.strip, stream), 1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield row[_column(tuple(row), column)]


def _parquet(path: Path, column: str) -> Iterator[object]:
    parquet = need("pyarrow.parquet", extra="batch")
    with parquet.ParquetFile(path) as file:
        name = _column(file.schema_arrow.names, column)
        for batch in file.iter_batches(columns=[name]):
            yield from batch.column(0).to_pylist()


_READERS: Mapping[str, Callable[[Path, str], Iterator[object]]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


def _column(names: Sequence[str], asked: str) -> str:
    if asked in names:
        return asked
    if len(names) == 1:
        return names[0]
    raise ValueError(f"it has no column {asked!r}, but: {', '.join(names) or 'none'}; --calibration-column NAME")
