"""The user's own texts to calibrate an engine on, read as a job reads its input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from likewise.batch.formats import SUFFIXES, RowSource, format_of
from likewise.batch.sources import open_source
from likewise.core.errors import InputInvalid
from likewise.engine.kinds import CalibrationTexts
from likewise.pipeline.pipeline import why_not_text
from likewise.pipeline.texts import spread

MOST = 512  # texts that are used of a file, spread evenly over it
ROWS = 1000  # read at once


def given_texts(path: Path, column: str) -> CalibrationTexts:
    """Texts of the file `path`: `column`, or the only column that it has.

    Raises InputNotFound, InputInvalid (no such column, no text in it, a row that is not what the file's suffix says).
    """
    if format_of(path.name) is None:
        raise InputInvalid(f"{path}: not a format that is read here", remedy=f"give one of {', '.join(SUFFIXES)}")
    values = _values(open_source(path), column)
    texts = [value for value in values if isinstance(value, str) and why_not_text(value) is None]
    if not texts:
        raise InputInvalid(f"{path}: no text in its column {column!r}", remedy="--calibration-column NAME")
    return CalibrationTexts(tuple(spread(texts, MOST)), f"{path.name}, {len(texts):,} texts", 1.5)


def _values(source: RowSource, column: str) -> Iterator[object]:
    for chunk in source.chunks(ROWS):
        for fault in chunk.faults.values():
            raise InputInvalid(f"{source.name}: {fault.cause}", remedy=fault.remedy)
        name = _column(source, column)
        yield from (record.get(name) for record in chunk.records)


def _column(source: RowSource, asked: str) -> str:
    names = source.columns
    if asked in names:
        return asked
    if len(names) == 1:
        return names[0]
    held = ", ".join(names) or "none"
    raise InputInvalid(f"{source.name} has no column {asked!r}, but: {held}", remedy="--calibration-column NAME")
