"""CSV: RFC 4180 with or without a header line, typed by the signature."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

from likewise.core.casts import NESTED
from likewise.core.errors import BadRequest
from likewise.core.fields import from_cell
from likewise.core.header import is_header, positions
from likewise.core.signature import Field, Signature
from likewise.core.tensors import dtype_of
from likewise.core.text_types import TextType, typed
from likewise.wire.cells import Cells
from likewise.wire.frame import Frame
from likewise.wire.jsontext import UNLIMITED

_CSV = "the CSV"


def parse_csv(
    text: str,
    signature: Signature,
    header: bool | None = True,
    *,
    by_line: bool = False,
    cells: Cells = UNLIMITED,
) -> Frame:
    """Parse a CSV document to a frame.

    header: whether the first line contains the column names; None if `core.header.is_header` decides.  Without one, the
    columns are the signature's in their order, or "0", "1", … if it names none.
    A blank line is a row with one empty field if there is one column.  If there are more, blank lines are skipped, as
    pandas does, unless `by_line`: the sender then matches the predictions to its lines, and a blank line is rejected.
    An empty field is the empty string in a string column and null in any other.  Columns that are not in the signature
    become numbers or booleans if all their values are.  Raises BadRequest, which names the row, and TooManyCells.
    """
    names, lines = _named(_lines(text, cells), signature, header)
    rows = _rows(lines, names, by_line=by_line)
    fields = _fields(signature, names)
    for at, field in enumerate(fields):
        if field is not None and (field.kind in NESTED or field.kind == "tensor"):
            cells.texts((row[at] for row in rows), _CSV)
    by_column = [_typed([row[at] for row in rows], field) for at, field in enumerate(fields)]
    return Frame(names, list(zip(*by_column, strict=True)), _CSV)


def _named(
    lines: list[list[str]], signature: Signature, header: bool | None
) -> tuple[tuple[str, ...], list[list[str]]]:
    """The names of the columns, and the lines after the header."""
    first = next((at for at, line in enumerate(lines) if line), None)
    if first is None:  # an empty document, or blank lines, which are rows of a single column
        names = signature.columns or positions(1)
        if header or not lines or len(names) > 1:
            raise BadRequest("the CSV is empty", remedy="send one line per row")
        return names, lines
    if header is None:
        header = is_header(lines[first], signature, more=first + 1 < len(lines))
        if header is None or (header and first > 0):
            raise BadRequest(
                "the CSV: the first line is either the names of the columns or a row",
                remedy="send Content-Type: text/csv; header=present for names, or text/csv; header=absent for a row",
            )
    if header:
        return tuple(lines[first]), lines[first + 1 :]
    return signature.columns or positions(len(lines[first])), lines


def _lines(text: str, cells: Cells) -> list[list[str]]:
    """The fields of each record; none for a blank line."""
    cells.csv(text, _CSV)
    csv.field_size_limit(sys.maxsize)  # a field is bounded by the limit of the body
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [line for line in reader]  # noqa: C416  a single call of C would block all other threads
    except csv.Error as error:
        raise BadRequest(
            f"the CSV cannot be read: {error} (line {reader.line_num})", remedy="send CSV that conforms to RFC 4180"
        ) from error


def _rows(lines: list[list[str]], names: Sequence[str], *, by_line: bool) -> list[list[str]]:
    """One list of as many fields as there are names for each row."""
    if len(names) == 1:
        lines = [line or [""] for line in lines]
    elif not by_line:
        lines = [line for line in lines if line]
    for i, line in enumerate(lines):
        if len(line) != len(names):
            raise BadRequest(
                f"the CSV, row {i}: {len(line)} fields for {len(names)} columns",
                remedy=f"send the columns {', '.join(names[:20])} in each line, and quote fields that contain a comma, "
                "quote or line break; rows count from 0, after the header",
            )
    return lines


def _fields(signature: Signature, names: Sequence[str]) -> Sequence[Field | None]:
    """The signature's field for each column: by name, or by position if the signature's columns have no names."""
    inputs = signature.inputs or ()
    if signature.columns is None and not signature.is_tensor:
        return [inputs[at] if at < len(inputs) else None for at in range(len(names))]
    if signature.columns is None and inputs and dtype_of(inputs[0]) != "object":
        return [inputs[0]] * len(names)
    by_name = {field.name: field for field in inputs}
    return [by_name.get(name) for name in names]


def _typed(values: Sequence[str], field: Field | None) -> Sequence[object]:
    """Values for the signature's cast; without a field, typed by all of them."""
    if field is not None:
        return [from_cell(value, field) for value in values]
    column = TextType()
    column.add(values)
    kind = column.kind
    return [typed(value, kind) for value in values]
