"""The conversion of a value for a field of the signature, a column or a tensor, and of CSV text for it."""

from __future__ import annotations

import json

from likewise.core.casts import INTEGERS, NESTED, NULLABLE, Cast, Source, cast_for, parse_number
from likewise.core.signature import Field
from likewise.core.tensors import dtype_of, row_cast

_TEXT = ("str", "U", "<U")  # NumPy's dtypes of text
ABSENT = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})  # missing values in a CSV's non-text columns


def field_cast(field: Field, source: Source) -> Cast:
    """The cast of one row's value for `field`; null is allowed where MLflow allows it. The cast raises Mismatch."""
    if field.kind == "tensor":
        return row_cast(field, source)
    nullable = field.kind in NULLABLE or (not field.required and field.kind not in INTEGERS)
    return cast_for(field.raw, nullable=nullable, source=source)


def from_cell(text: str, field: Field) -> object:
    """Prepare a CSV field for the column's cast: text unchanged, None if missing, nested types parsed as JSON."""
    if field.kind == "string" or (field.kind == "tensor" and dtype_of(field).startswith(_TEXT)):
        return text
    if text.strip().lower() in ABSENT:
        return None
    if _is_json(field):
        try:
            return json.loads(text, parse_float=parse_number)
        except (ValueError, RecursionError):
            pass  # the cast reports what it expected
    return text


def _is_json(field: Field) -> bool:
    return field.kind in NESTED or (field.kind == "tensor" and dtype_of(field) != "object")
