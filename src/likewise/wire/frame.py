"""Rows as they were sent, and their fitting to the model's signature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from likewise.core.casts import NESTED, Cast, Mismatch, column_cast, from_ascii, from_base64
from likewise.core.errors import BadRequest
from likewise.core.items import Table
from likewise.core.signature import Field, Signature
from likewise.wire import tensor
from likewise.wire.jsontext import shown


@dataclass(frozen=True, slots=True)
class Frame:
    """What a body holds before the signature is asked.

    names: column names, None for unnamed values; each row then holds one value.
    where: the field of the body that holds the rows, for messages.
    ascii_bytes: binary columns are ASCII text and not base64 (MLflow's `inputs` and `instances`).
    """

    names: tuple[str, ...] | None
    rows: Sequence[Sequence[object]]
    where: str
    ascii_bytes: bool = False


def fit(frame: Frame, signature: Signature) -> Table:
    """The frame as the signature has it: its columns in its order, its types; others are dropped, as MLflow does.

    An optional column that was not sent stays away.  Without a signature everything passes as it was sent.
    Raises BadRequest, which names the column and the row.
    """
    _no_duplicates(frame)
    fields = signature.inputs
    if not fields:
        return Table(frame.names, [tuple(row) for row in frame.rows])
    if signature.columns is not None:
        return _named(frame, fields, signature.columns)
    if signature.is_tensor:
        return _unnamed_tensor(frame, fields[0])
    return _unnamed_columns(frame, fields)


def _named(frame: Frame, fields: Sequence[Field], columns: tuple[str, ...]) -> Table:
    names = frame.names
    if names is None:
        names = columns if len(columns) == 1 else ()
    held = {name: place for place, name in enumerate(names)}
    for field in fields:
        if field.required and field.name not in held:
            raise _missing(str(field.name), frame)
    chosen = [field for field in fields if field.name in held]
    casts = [(held[str(f.name)], f"column {f.name!r}", _cast(f, frame)) for f in chosen]
    rows = [tuple(_one(frame, i, label, c, row[at]) for at, label, c in casts) for i, row in enumerate(frame.rows)]
    for field in chosen:
        _check_first_dimension(field, len(rows), frame)
    return Table(tuple(str(f.name) for f in chosen), rows)


def _unnamed_tensor(frame: Frame, field: Field) -> Table:
    _check_first_dimension(field, len(frame.rows), frame)
    single = frame.names is None or len(frame.names) == 1
    values: Iterable[object] = (row[0] if single else list(row) for row in frame.rows)
    cast = tensor.row_cast(field)
    return Table(None, [(_one(frame, i, "the tensor", cast, value),) for i, value in enumerate(values)])


def _unnamed_columns(frame: Frame, fields: Sequence[Field]) -> Table:
    casts = [(f"column {at}", _cast(field, frame)) for at, field in enumerate(fields)]
    if frame.names is None and len(fields) == 1:
        alone = fields[0].kind not in NESTED  # a row of one plain column may be sent as a list of one value
        values = (_only(row[0]) if alone else row[0] for row in frame.rows)
        return Table(None, [(_one(frame, i, *casts[0], value),) for i, value in enumerate(values)])
    rows: list[tuple[object, ...]] = []
    for i, row in enumerate(frame.rows):
        sent = row if frame.names is not None else row[0]
        if not isinstance(sent, (list, tuple)) or len(sent) < len(fields):
            raise BadRequest(
                f"{frame.where}, row {i}: the model takes {len(fields)} columns, and this row is {shown(sent)}",
                remedy="send a value for each column, in the signature's order",
            )
        rows.append(tuple(_one(frame, i, label, c, value) for (label, c), value in zip(casts, sent, strict=False)))
    if frame.names is None:
        return Table(None, [(list(row),) for row in rows])
    return Table(frame.names[: len(fields)], rows)


def _only(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _cast(field: Field, frame: Frame) -> Cast:
    if field.kind == "tensor":
        return tensor.row_cast(field)
    return column_cast(field, binary=from_ascii if frame.ascii_bytes else from_base64)


def _one(frame: Frame, row: int, label: str, cast: Cast, value: object) -> object:
    try:
        return cast(value)
    except Mismatch as error:
        raise BadRequest(
            f"{frame.where}, row {row}, {label}: expected {error}, got {shown(value)}",
            remedy="correct the value; rows count from 0",
        ) from error


def _check_first_dimension(field: Field, rows: int, frame: Frame) -> None:
    if field.kind == "tensor" and (declared := tensor.shape_of(field)[0]) not in (-1, rows):
        raise BadRequest(
            f"{frame.where}: the model takes {declared} rows at a time, and got {rows}",
            remedy=f"send {declared} rows a request",
        )


def _no_duplicates(frame: Frame) -> None:
    names = frame.names or ()
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{frame.where}: the column {twice!r} is there twice", remedy="name each column once")


def _missing(name: str, frame: Frame) -> BadRequest:
    if frame.names is None:
        return BadRequest(
            f"{frame.where}: the values have no names, and the model takes several columns, {name!r} among them",
            remedy="send dataframe_split or dataframe_records, which name the columns",
        )
    sent = ", ".join(map(repr, frame.names[:20])) or "none"
    near = get_close_matches(name, frame.names, n=1)
    return BadRequest(
        f"{frame.where}: the column {name!r} is missing; sent: {sent}",
        remedy=f"rename {near[0]!r} to {name!r}" if near else f"send the column {name!r}",
    )
