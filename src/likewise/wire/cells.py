"""The number of cells of a request, which is limited before anything of that size is built.

Cells are the values of a table (rows times columns), the elements of tensors, and the values of JSON, where lists and
objects count too, empty ones twice.

A small body can describe a huge table: rows that all have different keys, or one value that applies to all rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from likewise.core.errors import TooManyCells
from likewise.core.items import Params

SPARSE = 20  # most cells of a table per value that was sent for it
COLUMN = 10  # cells that a column counts at least, since its name is compared and indexed
SMALL = 20_000  # cells that a table may have in any case
TEXT = 100  # characters that count as one cell where each row repeats them: names of columns, params
_PIECE = 1 << 20
_BACKSLASH = ord("\\")


@dataclass(frozen=True, slots=True)
class Cells:
    """The limit for the cells of a request.  All methods raise TooManyCells if there are more."""

    limit: float = math.inf

    def check(self, count: int, where: str) -> None:
        """Check a number of cells.  where: what has them, for the message."""
        if count > self.limit:
            raise TooManyCells(
                f"{where} has {count:,} cells; the limit is {self.limit:,}",
                remedy="send fewer rows per request, score them as a batch job, or raise --cells-limit",
            )

    def table(self, rows: int, names: Sequence[str], sent: int, where: str) -> None:
        """Check a table before it is built from `sent` values.  It may be sparse, but not mostly empty."""
        self.check(COLUMN * len(names), f"{where}, in which a column is as costly as {COLUMN} values,")
        if rows < 2:
            return
        cells = rows * len(names)
        if cells > max(SMALL, SPARSE * sent):
            raise TooManyCells(
                f"{where} has {rows:,} rows and together {len(names):,} columns: {cells:,} cells, of which at most "
                f"{sent:,} have a value",
                remedy="send rows with different columns in separate requests",
            )
        self.check(cells + rows * sum(map(len, names)) // TEXT, where)

    def params(self, rows: int, params: Params) -> None:
        """Check the params of a request, which each of its rows has."""
        if params and rows > 1:
            self.check(rows * (sum(len(repr(value)) for value in params.values()) // TEXT), "each row with all params")

    def json(self, raw: bytes, where: str = "the body") -> None:
        """Check the values of a JSON text before it is parsed."""
        if len(raw) <= self.limit:
            return
        if len(raw.translate(None, _but(b",[{"))) >= self.limit:
            self.check(_starts(raw, b",[{", escapes=True), where)
        if 2 * raw.count(b":") >= self.limit:
            self.check(
                2 * _starts(raw, b":", escapes=True), f"{where}, in which each name of a value is as costly as two,"
            )

    def csv(self, text: str, where: str) -> None:
        """Check the fields of a CSV before it is parsed."""
        if len(text) > self.limit and text.count(",") + text.count("\n") + text.count("\r") >= self.limit:
            self.check(_starts(text.replace("\r\n", "\n").encode(), b",\n\r", escapes=False), where)

    def texts(self, texts: Iterable[str | None], where: str) -> None:
        """Check the values of several JSON texts, counting those in strings as well."""
        self.check(sum(1 + sum(map(text.count, ",[{")) for text in texts if text), where)


def estimated_cells(body: bytes) -> int:
    """About as many as JSON or CSV has cells, or more if its texts contain commas."""
    return len(body.translate(None, _but(b",\n[{")))


def _but(kept: bytes) -> bytes:
    return bytes(set(range(256)) - set(kept))


def _starts(raw: bytes, marks: bytes, *, escapes: bool) -> int:
    """The number of values: one more than there are `marks` outside of strings.  escapes: whether \\ escapes a quote.

    Works in steps of milliseconds, so that other threads can run.
    """
    others = _but(marks + b'"')
    values, inside, start = 1, 0, 0
    while start < len(raw):
        end = start + _PIECE
        while escapes and end < len(raw) and raw[end - 1] == _BACKSLASH:
            end += 1
        piece = raw[start:end]
        if escapes:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.translate(None, others).split(b'"')
        values += sum(map(len, parts[inside::2]))
        inside ^= len(parts) % 2 ^ 1
        start = end
    return values
