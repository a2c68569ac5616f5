"""Maps the input's columns to the model's: names by `--column`, types by the signature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from likewise.batch.formats import PREDICTIONS, RowSource
from likewise.batch.sources import has_predictions_column
from likewise.core.arrow import schema_bytes
from likewise.core.casts import Cast, Mismatch, Source
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.fields import field_cast, from_cell
from likewise.core.items import Row
from likewise.core.results import Failed
from likewise.core.signature import Field, Signature


class RowMaker:
    """Converts an input record to the model's `Row`.

    mapping: input column to model column. Each column of the signature is read from the input column mapped to it, or
    from the input column of the same name; without a signature, all input columns are used. Values are cast to the
    signature's types as for HTTP requests.
    """

    def __init__(self, source: RowSource, signature: Signature, mapping: Mapping[str, str]) -> None:
        self._textual = source.textual
        self._mapping = mapping
        for name in mapping:
            _require(name, source, "")
        typed = source.format == "parquet"
        schema = source.schema() if typed else None
        self._arrow = None if schema is None else schema_bytes(schema, mapping)
        bound = _bind(source, signature, mapping)
        self._fields: list[tuple[str, Field, Cast]] | None = None
        if bound is not None:
            self._fields = [
                (name, field, field_cast(field, Source.TYPED if typed else Source.TEXT)) for name, field in bound
            ]

    def __call__(self, record: Mapping[str, object], where: str) -> Row | Failed:
        """The row, or the error if the record does not fit the model. where: the record, as error messages name it."""
        if PREDICTIONS in record:
            return Failed(has_predictions_column(where))
        if self._fields is None:
            return self._all_columns(record)
        names: list[str] = []
        values: list[object] = []
        for name, field, cast in self._fields:
            if name in record:
                names.append(field.name or "")
                try:
                    values.append(self._value(record[name], field, cast))
                except Mismatch as error:
                    return _mismatch(where, name, record[name], error)
            elif field.required:
                cause = f"{where} has no column `{name}`"
                return Failed(RowRefused(cause, remedy=f"give the row a value for `{name}`"))
        unnamed = any(field.name is None for _, field, _ in self._fields)
        return Row(None if unnamed else tuple(names), tuple(values), arrow=self._arrow)

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


def _bind(source: RowSource, signature: Signature, mapping: Mapping[str, str]) -> list[tuple[str, Field]] | None:
    """Each input field of the signature with the name of its input column; None if the model declares no inputs."""
    inputs = signature.inputs
    if not inputs:
        return None
    by_model = {model: name for name, model in mapping.items()}
    if signature.columns is None:
        return [(_only_column(source, by_model), field) for field in inputs[:1]]
    for model in by_model:
        if model not in signature.columns:
            raise InputInvalid(
                f"the model has no column `{model}`; it has {_listed(signature.columns)}",
                remedy=f"use --column {by_model[model]}={_nearest(model, signature.columns)}",
            )
    bound = [(by_model.get(str(field.name), str(field.name)), field) for field in inputs]
    for name, field in bound:
        if field.required:
            _require(name, source, str(field.name))
    return bound


def _only_column(source: RowSource, by_model: Mapping[str, str]) -> str:
    """The input column for a model with one unnamed input: the mapped one, whatever it is mapped to, else the only one.

    Raises InputInvalid if there are several.
    """
    names = tuple(by_model.values()) or source.columns
    if len(names) != 1 and source.columns:
        raise InputInvalid(
            f"the model takes one unnamed value per row, but {source.name} has {_listed(source.columns)}",
            remedy=f"add --column {source.columns[0]}=input, or name another column",
        )
    return names[0] if names else ""


def _require(name: str, source: RowSource, model: str) -> None:
    """InputInvalid if a file of `source` has no column `name`. model: the model's column for it, if known."""
    part = next((part for part in source.parts if part.columns and name not in part.columns), None)
    if part is None:
        return
    nearest = _nearest(name, part.columns)
    raise InputInvalid(
        f"{part.name} has no column `{name}`; it has {_listed(part.columns)}",
        remedy=f"use --column {nearest}={model or 'COLUMN'}"
        + (f", if `{nearest}` is the right column" if model else ""),
    )


def _mismatch(where: str, name: str, value: object, error: Mismatch) -> Failed:
    cause = f"{where}, column `{name}`: expected {error}, got {str(value)[:100]!r}"
    return Failed(RowRefused(cause, remedy="correct the value"))


def _nearest(name: str, names: Sequence[str]) -> str:
    """The name most similar to `name`, ignoring case; the first of `names` if none is similar."""
    lower = {entry.lower(): entry for entry in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else names[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
