"""Maps the input's columns to the model's: names by `--column`, types by the signature."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from likewise.batch.formats import PREDICTIONS, RowSource
from likewise.batch.sources import has_predictions_column
from likewise.core.arrow import schema_bytes
from likewise.core.casts import Cast, Mismatch, Source, cast_for, mapping_of, properties_of, unchanged
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.fields import field_cast, from_cell
from likewise.core.items import NO_PARAMS, Params, Row
from likewise.core.results import Failed
from likewise.core.signature import Field, Signature
from likewise.core.tensors import shape_of
from likewise.core.text_types import MissingNumbers, TextType, as_double, typed

INFERENCE_ROWS = 4096  # rows in memory while types are inferred


@dataclass(frozen=True, slots=True)
class _Cell:
    """A value that the model takes from each row: the input column, the model's name for it, its type and its cast."""

    column: str
    name: str
    field: Field
    cast: Cast


@dataclass(frozen=True, slots=True)
class _Binding:
    """How a record becomes a row.

    shape: `columns`, a row of named values; `value`, one unnamed value; `list`, one unnamed list of all values;
    `object`, one unnamed dict of the values by name.  member: a cell that stands for all columns, whatever their names.
    whole: the cast of a `list`.
    """

    shape: Literal["columns", "value", "list", "object"]
    cells: Sequence[_Cell] = ()
    member: _Cell | None = None
    whole: Cast | None = None

    def cells_of(self, record: Mapping[str, object]) -> Sequence[_Cell]:
        """The values that the model takes from this record, if it has their columns."""
        if self.member is None:
            return self.cells
        return [replace(self.member, column=name, name=name) for name in record]

    def row(self, names: Sequence[str], values: Sequence[object], where: str, arrow: bytes | None) -> Row | Failed:
        """The row of these values, or the error if the list of all of them does not fit the model."""
        if self.shape == "columns":
            return Row(tuple(names), tuple(values), arrow=arrow)
        if self.shape == "object":
            return Row(None, (dict(zip(names, values, strict=True)),))
        if self.whole is None:
            return Row(None, tuple(values) or (None,))
        try:
            return Row(None, (self.whole(values),))
        except Mismatch as error:
            return _mismatch(where, ", ".join(names), values, error)


class RowMaker:
    """Converts an input record to the model's `Row`.

    mapping: input column to model column. Each column of the signature is read from the input column mapped to it, or
    from the input column of the same name; without a signature, all input columns are used. A signature without names
    takes the columns in their order, as MLflow does: one tensor takes all of them as a list, an object (of a type
    hint such as `list[Message]`) those that are its properties.  types: see `inferred_types`.  params: of each row.
    Values are cast to the signature's types as for HTTP requests.
    """

    def __init__(
        self,
        source: RowSource,
        signature: Signature,
        mapping: Mapping[str, str],
        types: Mapping[str, str] | None = None,
        params: Params = NO_PARAMS,
    ) -> None:
        self._textual = source.textual
        self._mapping = mapping
        self._types = types or {}
        self._params = params
        for name, model in mapping.items():
            _require(name, source, model)
        schema = source.schema() if _kind(source) is Source.TYPED else None
        self._arrow = None if schema is None else schema_bytes(schema, mapping)
        self._binding = _bind(source, signature, mapping)

    def __call__(self, record: Mapping[str, object], where: str) -> Row | Failed:
        """The row, or the error if the record does not fit the model. where: the record, as error messages name it."""
        row = self._row(record, where)
        return row if isinstance(row, Failed) or self._params is None else replace(row, params=self._params)

    def _row(self, record: Mapping[str, object], where: str) -> Row | Failed:
        if PREDICTIONS in record:
            return Failed(has_predictions_column(where))
        if types := self._types:
            record = {name: self._typed(name, value) for name, value in record.items()}
        if (binding := self._binding) is None:
            return self._all_columns(record)
        names: list[str] = []
        values: list[object] = []
        for cell in binding.cells_of(record):
            if cell.column in record:
                names.append(cell.name)
                value = record[cell.column]
                try:
                    values.append(value if types else self._value(value, cell.field, cell.cast))
                except Mismatch as error:
                    return _mismatch(where, cell.column, record[cell.column], error)
            elif cell.field.required:
                cause = f"{where} has no column `{cell.column}`"
                return Failed(RowRefused(cause, remedy=f"give the row a value for `{cell.column}`"))
        return binding.row(names, values, where, self._arrow)

    def _typed(self, name: str, value: Any) -> object:
        """The value in the type that was inferred for its column; that of JSON, except next to null."""
        if self._textual:
            return typed(str(value), self._types[name])
        return as_double(value) if name in self._types else value

    def _all_columns(self, record: Mapping[str, object]) -> Row:
        """A row of all columns, except those whose name `mapping` assigns to another column."""
        assigned = set(self._mapping.values())
        names = [name for name in record if name in self._mapping or name not in assigned]
        columns = tuple(self._mapping.get(name, name) for name in names)
        return Row(columns, tuple(record[name] for name in names), arrow=self._arrow)

    def _value(self, value: object, field: Field, cast: Cast) -> object:
        if self._textual and isinstance(value, str):
            return cast(from_cell(value, field))
        return cast(value)


def _kind(source: RowSource) -> Source:
    return Source.TYPED if source.format == "parquet" else Source.TEXT


def inferred_types(source: RowSource, signature: Signature) -> dict[str, str] | None:
    """MLflow's type of each column of CSV files, from all of their rows; None if the rows have other types.

    That is the case for Parquet, and for models that declare the types of their inputs.  Of JSON Lines the columns with
    null among numbers, which are doubles (None if there are none).  Reads the files once.
    """
    if source.format == "jsonl" and not signature.inputs:
        return _missing_numbers(source) or None
    if not source.textual or not _takes_any_type(signature):
        return None
    columns = {name: TextType() for name in source.columns}
    for chunk in source.chunks(INFERENCE_ROWS):
        records = [record for index, record in enumerate(chunk.records) if index not in chunk.faults]
        for name, column in columns.items():
            column.add([str(record[name]) for record in records])
    return {name: column.kind for name, column in columns.items()}


def _missing_numbers(source: RowSource) -> dict[str, str]:
    found: dict[str, MissingNumbers] = {}
    for chunk in source.chunks(INFERENCE_ROWS):
        for index, record in enumerate(chunk.records):
            for name, value in record.items() if index not in chunk.faults else ():
                found.setdefault(name, MissingNumbers()).add((value,))
    return {name: "double" for name, column in found.items() if column.found}


def _takes_any_type(signature: Signature) -> bool:
    """Whether the signature leaves the types of the input's columns open."""
    if not signature.inputs:
        return True
    spec = signature.inputs[0].raw
    if spec.get("type") == "map":
        spec = mapping_of(spec.get("values"))
    return signature.columns is None and len(signature.inputs) == 1 and spec.get("type") == "any"


def _bind(source: RowSource, signature: Signature, mapping: Mapping[str, str]) -> _Binding | None:
    """How the records of `source` become rows; None if the model declares no inputs."""
    inputs = signature.inputs
    if not inputs:
        return None
    by_model = {model: name for name, model in mapping.items()}
    if signature.columns is None:
        return _bind_unnamed(source, inputs, by_model)
    for model in by_model:
        if model not in signature.columns:
            raise InputInvalid(
                f"the model has no column `{model}`; it has {_listed(signature.columns)}",
                remedy=_correct(by_model[model], model, signature.columns),
            )
    cells = [_column(by_model.get(str(field.name), str(field.name)), field, _kind(source)) for field in inputs]
    for cell in cells:
        if cell.field.required:
            _require(cell.column, source, cell.name, {each.column for each in cells})
    return _Binding("columns", cells)


def _bind_unnamed(source: RowSource, inputs: Sequence[Field], by_model: Mapping[str, str]) -> _Binding:
    """The binding of inputs without names: to the mapped columns if there are any, else to all, in their order."""
    field, kind = inputs[0], _kind(source)
    mapped = [by_model[model] for model in sorted(by_model, key=_position)]
    names = mapped or list(source.columns)
    if len(inputs) > 1:
        if len(names) < len(inputs):
            raise _too_few(source, len(inputs))
        return _Binding("columns", [_column(name, field, kind) for name, field in zip(names, inputs, strict=False)])
    if field.kind == "object":
        properties = properties_of(field.raw)
        bound = {by_model.get(name, name): spec for name, spec in properties.items()}
        if any(model in properties for model in by_model) or any(name in bound for name in source.columns):
            return _Binding("object", _property_cells(properties, by_model, kind))
        if len(names) > 1:
            example = f"--column {names[0]}={next(iter(properties), 'FIELD')}"
            raise InputInvalid(
                f"{source.name} has none of the model's fields {_listed(properties)}; it has {_listed(names)}",
                remedy=f"map its columns to the model's fields, such as {example}",
            )
    if field.kind == "map" and len(names) > 1:
        member = mapping_of(field.raw.get("values"))
        of = Field(None, str(member.get("type")), True, member)
        return _Binding("object", member=_Cell("", "", of, _member_cast(member, kind)))
    if field.kind == "tensor" and len(names) > 1:
        _require_positions(source, field, names)
        cells = [_Cell(name, name, field, unchanged) for name in names]
        return _Binding("list", cells, whole=field_cast(field, kind))
    name = names[0] if names else ""
    cast = _object_cast(field, kind) if field.kind == "object" else field_cast(field, kind)
    return _Binding("value", [_Cell(name, name, field, cast)])


def _column(name: str, field: Field, kind: Source) -> _Cell:
    return _Cell(name, name if field.name is None else field.name, field, field_cast(field, kind))


def _property_cells(
    properties: Mapping[str, Mapping[str, object]], by_model: Mapping[str, str], kind: Source
) -> list[_Cell]:
    """The properties that the input has: for the others the model has defaults, or it refuses the row itself."""
    for model in by_model:
        if model not in properties:
            raise InputInvalid(
                f"the model has no field `{model}`; it has {_listed(properties)}",
                remedy=_correct(by_model[model], model, list(properties)),
            )
    fields = {name: Field(name, str(spec.get("type")), False, spec) for name, spec in properties.items()}
    return [
        _Cell(by_model.get(name, name), name, field, _member_cast(field.raw, kind)) for name, field in fields.items()
    ]


def _member_cast(spec: Mapping[str, object], kind: Source) -> Cast:
    """The cast of a value that the model's own type hints check again: null is theirs to refuse."""
    return cast_for(spec, nullable=True, source=kind)


def _object_cast(field: Field, kind: Source) -> Cast:
    """The cast of an object whose missing and unknown properties are left to the model's own type hints."""
    casts = {name: _member_cast(spec, kind) for name, spec in properties_of(field.raw).items()}

    def cast(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: casts.get(name, unchanged)(member) for name, member in value.items()}

    return cast


def _position(model: str) -> tuple[int, str]:
    """The order of mapped columns whose model has no names: by number, then by text."""
    return (int(model), "") if model.isascii() and model.isdecimal() else (sys.maxsize, model)


def _require_positions(source: RowSource, field: Field, names: Sequence[str]) -> None:
    """InputInvalid unless a row of the tensor consists of as many values as there are columns."""
    dimensions = shape_of(field)[1:]
    if len(dimensions) == 1 and dimensions[0] in (-1, len(names)):
        return
    takes = f"{dimensions[0]} values" if len(dimensions) == 1 else f"an array of shape {dimensions}"
    cause = f"the model takes {takes if dimensions else 'one value'} per row, but {source.name} has {_listed(names)}"
    if len(dimensions) == 1 and dimensions[0] > len(names):
        raise InputInvalid(cause, remedy=f"give it {dimensions[0]} columns in the model's order, or one of lists")
    chosen = names[: dimensions[0] if len(dimensions) == 1 else 1]
    pairs = " ".join(f"--column {name}={index}" for index, name in enumerate(chosen))
    raise InputInvalid(cause, remedy=f"name the columns to use, in the model's order, such as {pairs}")


def _too_few(source: RowSource, count: int) -> InputInvalid:
    return InputInvalid(
        f"the model takes {count} columns, but {source.name} has {_listed(source.columns)}",
        remedy="add the missing columns, in the order of the model's signature",
    )


def _require(name: str, source: RowSource, model: str, used: Collection[str] = ()) -> None:
    """InputInvalid if a file of `source` has no column `name`.

    model: the model's column for it.  used: columns that the model uses, which are not suggested.
    """
    part = next((part for part in source.parts if part.columns and name not in part.columns), None)
    if part is None:
        return
    cause = f"{part.name} has no column `{name}`; it has {_listed(part.columns)}"
    left = [each for each in part.columns if each not in used]
    if not left:
        raise InputInvalid(cause, remedy=f"add the column `{name}` to the input")
    likely = left[0] if len(used) == 1 else "INPUT"  # next to several columns it may be the labels
    mapping = shlex.quote(f"{_nearest(name, left) or likely}={model}")
    raise InputInvalid(cause, remedy=f"add it, or if another column has its values, use --column {mapping}")


def _mismatch(where: str, name: str, value: object, error: Mismatch) -> Failed:
    cause = f"{where}, column `{name}`: expected {error}, got {str(value)[:100]!r}"
    return Failed(RowRefused(cause, remedy="correct the value"))


def _correct(column: str, model: str, names: Sequence[str]) -> str:
    """What to do about a mapping to `model`, which is not one of the model's `names`."""
    near = _nearest(model, names)
    return f"use --column {shlex.quote(f'{column}={near}')}" if near else f"map `{column}` to one of these, or omit it"


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """The name most similar to `name`, ignoring case; None if none is similar."""
    lower = {entry.lower(): entry for entry in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
