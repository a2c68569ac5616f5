"""CSV: RFC 4180 with a header row, typed by the signature."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.frame import Frame
from likewise.wire.types import Mismatch, to_boolean, to_double

_ABSENT = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})


def parse_csv(text: str, signature: Signature) -> Frame:
    """The rows below the header.

    An empty field is the empty string in a string column and null in any other.  Columns that the signature does not
    type are numbers or booleans where each of their values is one.  BadRequest names the row.
    """
    rows = _rows(text)
    if not rows:
        raise BadRequest("the CSV is empty", remedy="send a header row and one line a row")
    names, data = tuple(rows[0]), rows[1:]
    for i, row in enumerate(data):
        if len(row) != len(names):
            raise BadRequest(
                f"the CSV, row {i}: {len(row)} fields for {len(names)} columns",
                remedy="quote a field that holds a comma, a quote or a line break; rows count from 0, the header apart",
            )
    kinds = {field.name: field.kind for field in signature.inputs or ()}
    by_column = [_column([row[at] for row in data], kinds.get(name)) for at, name in enumerate(names)]
    return Frame(names, list(zip(*by_column, strict=True)), "the CSV")


def _rows(text: str) -> list[list[str]]:
    csv.field_size_limit(sys.maxsize)  # the body's limit bounds a field
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [row for row in reader if row]  # a blank line is no row
    except csv.Error as error:
        raise BadRequest(
            f"the CSV cannot be read: {error} (line {reader.line_num})", remedy="write it as RFC 4180 has it"
        ) from error


def _column(values: Sequence[str], kind: str | None) -> Sequence[object]:
    if kind == "string":
        return values
    sparse = [None if value.strip().lower() in _ABSENT else value for value in values]
    return sparse if kind is not None else _guessed(values, sparse)


def _guessed(values: Sequence[str], sparse: Sequence[str | None]) -> Sequence[object]:
    """As pandas.read_csv would type the column: booleans, integers, floats, else text."""
    present = [value for value in sparse if value is not None]
    for cast in (_true_or_false, int, to_double):
        try:
            made = iter([cast(value) for value in present])
        except (Mismatch, ValueError):
            continue
        return [None if value is None else next(made) for value in sparse]
    return values


def _true_or_false(text: str) -> bool:
    return to_boolean(text if text.strip().lower() in ("true", "false") else None)
