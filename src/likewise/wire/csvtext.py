"""CSV: RFC 4180 with a header row, typed by the signature."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

from likewise.core.casts import from_cell
from likewise.core.errors import BadRequest
from likewise.core.signature import Field, Signature
from likewise.core.text_types import TextType, typed
from likewise.wire.frame import Frame


def parse_csv(text: str, signature: Signature) -> Frame:
    """Parse a CSV document to a frame.

    An empty field is the empty string in a string column and null in any other.  Columns that are not in the signature
    become numbers or booleans if all their values are.  Raises BadRequest, which names the row.
    """
    rows = _rows(text)
    if not rows:
        raise BadRequest("the CSV is empty", remedy="send a header row and one line per row")
    names, data = tuple(rows[0]), rows[1:]
    for i, row in enumerate(data):
        if len(row) != len(names):
            raise BadRequest(
                f"the CSV, row {i}: {len(row)} fields for {len(names)} columns",
                remedy="quote fields that contain a comma, quote or line break; rows count from 0, after the header",
            )
    fields = {field.name: field for field in signature.inputs or ()}
    by_column = [_typed([row[at] for row in data], fields.get(name)) for at, name in enumerate(names)]
    return Frame(names, list(zip(*by_column, strict=True)), "the CSV")


def _rows(text: str) -> list[list[str]]:
    csv.field_size_limit(sys.maxsize)  # a field is bounded by the limit of the body
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [row for row in reader if row]  # skips blank lines
    except csv.Error as error:
        raise BadRequest(
            f"the CSV cannot be read: {error} (line {reader.line_num})", remedy="send CSV that conforms to RFC 4180"
        ) from error


def _typed(values: Sequence[str], field: Field | None) -> Sequence[object]:
    """Values for the signature's cast; without a field, typed by all of them."""
    if field is not None:
        return [from_cell(value, field) for value in values]
    column = TextType()
    column.add(values)
    kind = column.kind
    return [typed(value, kind) for value in values]
