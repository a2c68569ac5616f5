"""Frames of rows as sent in a request, and their conversion to tables of the model's signature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from likewise.core.casts import NESTED, Cast, Mismatch, Source
from likewise.core.errors import BadRequest
from likewise.core.fields import field_cast
from likewise.core.items import ARRAYS, Sent, Table
from likewise.core.signature import Field, Signature
from likewise.core.tensors import shape_of
from likewise.core.text_types import MissingNumbers, as_double
from likewise.wire.jsontext import SHOWN, nearest, shown

NAMED = 20  # columns in an error message
_PLANS = 64  # maximum number of column orders that a fitter caches


@dataclass(frozen=True, slots=True)
class Frame:
    """The content of a body before the signature is applied.

    names: column names; None for unnamed values, and each row then has one value.
    where: the field of the body that contains the rows, for error messages.
    source: how its values are converted.  arrow: its Arrow schema, if it has one; see `core.items.Table`.
    """

    names: tuple[str, ...] | None
    rows: Sequence[Sequence[object]]
    where: str
    source: Source = Source.TEXT
    arrow: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Cell:
    """A value of each row: its index in the row, its label in error messages, and its cast."""

    at: int
    label: str
    cast: Cast


@dataclass(frozen=True, slots=True)
class _Plan:
    """How frames with the same names become tables: the table's columns, their cells, and those that are tensors."""

    columns: tuple[str, ...]
    cells: Sequence[_Cell]
    tensors: Sequence[Field]


class Fitter:
    """Converts frames to tables of one signature.  Thread-safe; work for the signature alone is done once."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._fields = tuple(signature.inputs or ())
        self._columns = signature.columns
        self._has_arrays = any(field.kind == "array" for field in self._fields)
        self._plans: dict[tuple[tuple[str, ...] | None, Source], _Plan] = {}

    def __call__(self, frame: Frame) -> Table:
        """The frame's columns in the signature's order and types; other columns are dropped, as in MLflow.

        Optional columns that were not sent are omitted.  Without a signature, the frame is used unchanged.
        Raises BadRequest, which names the column and the row.
        """
        if self._columns is not None:
            plan = self._plans.get((frame.names, frame.source)) or self._planned(frame)
            arrow = ARRAYS if frame.source is Source.ARRAYS and self._has_arrays else frame.arrow
            table = Table(plan.columns, _cast_rows(frame, plan.cells), arrow=arrow)
            for field in plan.tensors:
                _check_first_dimension(field, len(table), frame)
            return table
        _no_duplicates(frame)
        if not self._fields:
            rows = [tuple(row) for row in frame.rows]
            inferred = frame.names is not None and frame.arrow is None and frame.source is not Source.TENSORS
            return Table(frame.names, _with_missing(rows) if inferred else rows, arrow=frame.arrow)
        if self.signature.is_tensor:
            return self._unnamed_tensor(frame)
        return self._unnamed_columns(frame)

    def _planned(self, frame: Frame) -> _Plan:
        """The plan for the frame's names; cached only if every name is a column, or clients could fill the cache."""
        _no_duplicates(frame)
        columns = self._columns or ()
        names = frame.names if frame.names is not None else columns if len(columns) == 1 else ()
        positions = {name: index for index, name in enumerate(names)}
        self._require(positions, frame)
        chosen = [field for field in self._fields if field.name in positions]
        cells = [_Cell(positions[str(f.name)], f"column {f.name!r}", field_cast(f, frame.source)) for f in chosen]
        tensors = [field for field in chosen if field.kind == "tensor"]
        plan = _Plan(tuple(str(field.name) for field in chosen), cells, tensors)
        if len(chosen) == len(names) and len(self._plans) < _PLANS:
            self._plans[frame.names, frame.source] = plan
        return plan

    def whole(self, frame: Frame, sent: Sent) -> Table:
        """The frame's rows uncast, for a model that receives `sent`; BadRequest if a required column is missing."""
        if self._columns is not None:
            self._require(frame.names or (), frame)
        return Table(frame.names, [tuple(row) for row in frame.rows], sent)

    def tensors(self, values: Mapping[str, object], where: str) -> Table:
        """A table of named tensors with different first dimensions; the model receives them as MLflow's `inputs`."""
        names = tuple(values)
        self._require(names, Frame(names, [], where))
        typed = {str(f.name): _tensor(f, values[str(f.name)], where) for f in self._fields if f.name in values}
        return Table(tuple(typed), [tuple(typed.values())], Sent("inputs", typed))

    def _require(self, names: Container[str], frame: Frame) -> None:
        required = [str(field.name) for field in self._fields if field.required]
        for name in required:
            if name not in names:
                raise self._missing(name, frame) if frame.names or frame.rows else _no_rows(required, frame.where)

    def _missing(self, name: str, frame: Frame) -> BadRequest:
        if frame.names is None:
            return BadRequest(
                f"{frame.where}: the values have no names, but the model takes several columns, including {name!r}",
                remedy="send dataframe_split or dataframe_records, which include column names",
            )
        sent = ", ".join(repr(other[:SHOWN]) for other in frame.names[:NAMED]) or "none"
        own = {field.name for field in self._fields}
        near = nearest(name, (other for other in frame.names if other not in own))
        return BadRequest(
            f"{frame.where}: the column {name!r} is missing; sent: {sent}",
            remedy=f"rename {near!r} to {name!r}" if near else f"send the column {name!r}",
        )

    def _unnamed_tensor(self, frame: Frame) -> Table:
        field = self._fields[0]
        _check_first_dimension(field, len(frame.rows), frame)
        single = frame.names is None or len(frame.names) == 1
        rows = [(row[0] if single else list(row),) for row in frame.rows]
        return Table(None, _cast_rows(frame, [_Cell(0, "the tensor", field_cast(field, frame.source))], rows))

    def _unnamed_columns(self, frame: Frame) -> Table:
        fields, source, hinted = self._fields, frame.source, self.signature.from_type_hints
        if hinted and frame.names is not None:
            frame = replace(frame, names=None, rows=[[value] for value in _elements(frame, fields[0])])
        if hinted and source is Source.ARRAYS:
            source = Source.TEXT  # MLflow expects base64 there
        cells = [_Cell(at, f"column {at}", field_cast(field, source)) for at, field in enumerate(fields)]
        if frame.names is None and len(fields) == 1:
            if fields[0].kind in NESTED:  # such columns come from type hints, which validate them
                return Table(None, [(row[0],) for row in frame.rows])
            values = [row[0] if hinted else _only(row[0]) for row in frame.rows]
            return Table(None, _cast_rows(frame, cells, [(value,) for value in values]))
        sent = [
            _enough(row if frame.names is not None else row[0], i, frame, fields) for i, row in enumerate(frame.rows)
        ]
        rows = _cast_rows(frame, cells, sent)
        if frame.names is None:
            return Table(None, [(list(row),) for row in rows])
        return Table(frame.names[: len(fields)], rows, arrow=frame.arrow)


def _cast_rows(
    frame: Frame, cells: Sequence[_Cell], rows: Sequence[Sequence[object]] | None = None
) -> list[tuple[object, ...]]:
    """Cast `rows`, by default the frame's; raises BadRequest, which names the first value of the wrong type."""
    rows = frame.rows if rows is None else rows
    pairs = [(cell.at, cell.cast) for cell in cells]
    try:
        return [tuple([cast(row[at]) for at, cast in pairs]) for row in rows]
    except Mismatch:
        for i, row in enumerate(rows):
            for cell in cells:
                _check(frame, i, cell, row[cell.at])
        raise


def _check(frame: Frame, row: int, cell: _Cell, value: object) -> None:
    try:
        cell.cast(value)
    except Mismatch as error:
        raise BadRequest(
            f"{frame.where}, row {row}, {cell.label}: expected {error}, got {shown(value)}",
            remedy="correct the value; rows count from 0",
        ) from error


def _tensor(field: Field, value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise BadRequest(
            f"{where}, the tensor {field.name!r}: expected a list, got {shown(value)}", remedy="send nested lists"
        )
    frame = Frame((str(field.name),), [(element,) for element in value], where)
    _check_first_dimension(field, len(value), frame)
    return [
        row[0] for row in _cast_rows(frame, [_Cell(0, f"the tensor {field.name!r}", field_cast(field, frame.source))])
    ]


def _enough(sent: object, row: int, frame: Frame, fields: Sequence[Field]) -> Sequence[object]:
    if isinstance(sent, (list, tuple)) and len(sent) >= len(fields):
        return sent
    raise BadRequest(
        f"{frame.where}, row {row}: the model takes {len(fields)} columns, but this row is {shown(sent)}",
        remedy="send a value for each column, in the signature's order",
    )


def _elements(frame: Frame, field: Field) -> Iterator[object]:
    """The elements of a type hint `list[…]`: objects of the columns, or the values of the first one, as in MLflow."""
    objects = field.kind in ("object", "map") and frame.names != ("0",)
    return (dict(zip(frame.names or (), row, strict=True)) if objects else row[0] for row in frame.rows)


def _only(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _check_first_dimension(field: Field, rows: int, frame: Frame) -> None:
    if field.kind == "tensor" and (declared := shape_of(field)[0]) not in (-1, rows):
        raise BadRequest(
            f"{frame.where}: the model takes {declared} rows per request, but got {rows}",
            remedy=f"send {declared} rows per request",
        )


def _with_missing(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The rows with NaN for null in columns of numbers, as pandas makes them of the whole request."""
    if not any(None in row for row in rows):
        return rows
    columns = []
    for values in zip(*rows, strict=True):
        missing = MissingNumbers()
        missing.add(values)
        columns.append(map(as_double, values) if missing.found else values)
    return list(zip(*columns, strict=True))


def _no_duplicates(frame: Frame) -> None:
    names = frame.names or ()
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise BadRequest(f"{frame.where}: duplicate column {twice[:SHOWN]!r}", remedy="send each column once")


def _no_rows(columns: Sequence[str], where: str) -> BadRequest:
    more = ", …" if len(columns) > NAMED else ""
    row = ", ".join(f'"{name[:SHOWN]}": …' for name in columns[:NAMED])
    return BadRequest(
        f"{where}: there are no rows, and no column names either",
        remedy=f'send an object with the model\'s columns for each row: {{"dataframe_records": [{{{row}{more}}}]}}',
    )
