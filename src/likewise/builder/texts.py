"""Reads the user's calibration texts with the readers of batch jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from likewise.batch.formats import SUFFIXES, RowSource, format_of
from likewise.batch.sources import open_source
from likewise.core.errors import InputInvalid
from likewise.core.text import why_not_text
from likewise.engine.kinds import CalibrationTexts
from likewise.engine.text.cascade import ENOUGH, SAMPLE, texts_for
from likewise.engine.text.texts import MAX_TEXTS, spread

CHUNK_ROWS = 1000  # rows read at a time


def calibration_texts(path: Path, column: str, agreement: float | None = None) -> CalibrationTexts:
    """The texts in `column` of the file `path`, or in its only column; enough of them to prove `agreement`, in percent.

    Raises InputNotFound, InputInvalid (no such column, no text in it, or a row that does not match the file's format).
    """
    if format_of(path.name) is None:
        raise InputInvalid(f"{path}: unsupported format", remedy=f"use one of {', '.join(SUFFIXES)}")
    values = _values(open_source(path), column)
    texts = [value for value in values if isinstance(value, str) and why_not_text(value) is None]
    if not texts:
        raise InputInvalid(f"{path}: no text in the column {column!r}", remedy="set --calibration-column NAME")
    most = MAX_TEXTS
    if agreement is not None:
        if len(texts) < (least := texts_for(agreement / 100)):
            raise InputInvalid(
                f"it takes {least:,} texts to prove that {agreement:g} % of the predictions stay the same, and "
                f"{path.name} has {len(texts):,}",
                remedy="use more texts, or a lower --agreement",
            )
        most = max(ENOUGH * least, SAMPLE)
    chosen = tuple(spread(texts, most))
    source = path.name if len(chosen) == len(texts) else f"{path.name}, which has {len(texts):,}"
    return CalibrationTexts(chosen, source, 1.5)


def _values(source: RowSource, column: str) -> Iterator[object]:
    for chunk in source.chunks(CHUNK_ROWS):
        for fault in chunk.faults.values():
            raise InputInvalid(f"{source.name}: {fault.cause}", remedy=fault.remedy)
        name = _column(source, column)
        yield from (record.get(name) for record in chunk.records)


def _column(source: RowSource, requested: str) -> str:
    names = source.columns
    if requested in names:
        return requested
    if len(names) == 1:
        return names[0]
    available = ", ".join(names) or "none"
    raise InputInvalid(
        f"{source.name} has no column {requested!r}; its columns: {available}",
        remedy="set --calibration-column NAME",
    )
