"""Rows for recording and comparing a model: its example, and the example with other texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress

from likewise.bundles.open import Bundle
from likewise.core.items import Params, Row
from likewise.core.signature import Signature
from likewise.engine.example import Example
from likewise.engine.kinds import CalibrationTexts
from likewise.engine.text.texts import generated_texts

LONGEST = 192
"""Tokens of generated texts."""

TIMED = 32
"""Rows for timing engines."""

NAMES = ("text", "inputs", "sentence", "context", "sequences", "content", "review")
"""Columns that hold the text, if several columns hold strings."""

MASKS = ("[MASK]", "<mask>")


def generated(bundle: Bundle) -> CalibrationTexts:
    """Texts from the words of a tokenizer in the bundle; none without one."""
    found = sorted(bundle.path.rglob("tokenizer.json"), key=lambda path: (len(path.parts), path))
    texts = generated_texts(found[0], _longest(bundle)) if found else []
    ordered = [text for start in range(8) for text in texts[start::8]]  # of all lengths, wherever recording ends
    return CalibrationTexts(tuple(ordered), f"its example and {len(ordered)} generated texts", 3.0)


def _longest(bundle: Bundle) -> int:
    """LONGEST, or less if a model in the bundle has fewer positions; a text has more tokens than it was made of."""
    limits = []
    for path in bundle.path.rglob("config.json"):
        with suppress(ValueError, OSError, KeyError, TypeError):
            limits.append(json.loads(path.read_bytes())["max_position_embeddings"])
    return min([LONGEST, *(limit // 2 for limit in limits if isinstance(limit, int) and limit > 8)])


def timing_rows(bundle: Bundle, example: Example | None) -> list[Row]:
    """Rows of different lengths for timing the engines of a bundle with compiled modules; may be empty."""
    return rows_of(example, bundle.signature, generated(bundle).values)[:TIMED]


def rows_of(example: Example | None, signature: Signature, texts: Sequence[str]) -> list[Row]:
    """The example's rows, and one row for each text, which replaces the text of the first row.

    Without an example, a model whose signature has one column of strings, or that has none, takes the texts themselves.
    """
    if example is None or example.table.sent is not None:
        columns = signature.columns
        if columns is not None and len(columns) != 1:
            return []
        names = None if columns is None else tuple(columns)
        return [Row(names, (text,), None) for text in texts]
    table, params = example.table, example.params
    rows = [Row(table.columns, tuple(values), params) for values in table.rows]
    return [*rows, *_varied(rows[0], texts, params)] if rows else []


def _varied(row: Row, texts: Sequence[str], params: Params) -> Iterator[Row]:
    at = _text_column(row)
    if at is None:
        return
    sample = str(row.values[at])
    mask = next((each for each in MASKS if each in sample), "")
    for text in texts:
        values = [*row.values]
        values[at] = f"{text} {mask}" if mask else text
        yield Row(row.columns, tuple(values), params)


def _text_column(row: Row) -> int | None:
    """The position of the text among the values; None if there is none."""
    found = [at for at, value in enumerate(row.values) if isinstance(value, str)]
    if row.columns is not None and len(found) > 1:
        names = [row.columns[at] for at in found]
        return next((found[names.index(name)] for name in NAMES if name in names), found[0])
    return found[0] if found else None
