"""Whether the first line of a CSV is a header, which contains the names of the columns, or a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from likewise.core.casts import Mismatch, to_double
from likewise.core.signature import Signature

CHOICES: Mapping[str | None, bool | None] = {None: None, "present": True, "absent": False}  # of users, see RFC 4180


def positions(width: int) -> tuple[str, ...]:
    """The names of `width` columns that have none: "0", "1", …, as in pandas."""
    return tuple(map(str, range(width)))


def is_row(fields: Sequence[str]) -> bool:
    """Whether a line with these fields is certainly not a header: one of them is a number or a boolean.

    Several fields "0", "1", … are not certain: pandas writes them as the header of columns without names.
    """
    pandas_header = len(fields) > 1 and tuple(fields) == positions(len(fields))
    return not pandas_header and any(map(_is_value, fields))


def is_header(fields: Sequence[str], signature: Signature, *, more: bool) -> bool | None:
    """Whether a first line with these fields is a header, None if that is unclear.  more: whether lines follow it.

    If the signature names columns, a line that names none of them is a row, and a line that names all required ones is
    a header, unless no line follows, a name is repeated, or it has as many fields as a row and not all of them are
    names.  If the signature names no columns, `is_row` decides.
    """
    columns = signature.columns
    if columns is None:
        return False if is_row(fields) else None
    named = set(columns).intersection(fields)
    if not named:
        return False
    required = {field.name for field in signature.inputs or () if field.required}
    row_too = len(fields) == len(columns) and len(named) < len(fields)
    return True if required <= named and len(set(fields)) == len(fields) and more and not row_too else None


def _is_value(text: str) -> bool:
    try:
        to_double(text)
    except Mismatch:
        return text.strip().lower() in ("true", "false")
    return True
