"""From the input's columns to the model's: names by `--column`, types by the signature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal

from likewise.batch.formats import PREDICTIONS, RowSource
from likewise.batch.sources import predictions_taken
from likewise.core.casts import Cast, Mismatch, column_cast, from_base64, from_cell
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.items import Row
from likewise.core.results import Failed
from likewise.core.signature import Field, Signature


class RowMaker:
    """Makes the model's `Row` of an input record.

    The signature's columns are taken, each from the input column that `mapping` (input to model) names or from its
    namesake; without a signature, all columns are. CSV and JSON lines become what the signature says, by the casts that
    a request meets too; a Parquet file has types of its own, and only its text is cast.
    """

    def __init__(self, source: RowSource, signature: Signature, mapping: Mapping[str, str]) -> None:
        self._textual = source.textual
        self._mapping = mapping
        for name in mapping:
            _require(name, source, "")
        self._typed = source.format == "parquet"
        bound = _bind(source, signature, mapping)
        self._fields: list[tuple[str, Field, Cast]] | None = None
        if bound is not None:
            self._fields = [(name, field, column_cast(field, binary=from_base64)) for name, field in bound]

    def __call__(self, record: Mapping[str, object], where: str) -> Row | Failed:
        """The row, or why this record makes none."""
        if PREDICTIONS in record:
            return Failed(predictions_taken(where))
        if self._fields is None:
            return self._whole(record)
        names: list[str] = []
        values: list[object] = []
        for name, field, cast in self._fields:
            if name in record:
                names.append(field.name or "")
                try:
                    values.append(self._value(record[name], field, cast))
                except ValueError as error:  # Mismatch, or bytes that are no text
                    return _misfit(where, name, record[name], error)
            elif field.required:
                cause = f"{where} has no column `{name}`"
                return Failed(RowRefused(cause, remedy=f"give the row a value for `{name}`"))
        unnamed = any(field.name is None for _, field, _ in self._fields)
        return Row(None if unnamed else tuple(names), tuple(values))

    def _whole(self, record: Mapping[str, object]) -> Row:
        """All columns; one whose name `mapping` gives to another is left out."""
        given = set(self._mapping.values())
        names = [name for name in record if name in self._mapping or name not in given]
        return Row(
            tuple(self._mapping.get(name, name) for name in names), tuple(_plain(record[name]) for name in names)
        )

    def _value(self, value: object, field: Field, cast: Cast) -> object:
        if self._textual and isinstance(value, str):
            return cast(from_cell(value, field))
        if isinstance(value, str) or not self._typed:
            return cast(value)
        return value.decode() if field.kind == "string" and isinstance(value, bytes) else _plain(value)


def _plain(value: object) -> object:
    """As an item holds it: a Decimal as double, other types that JSON lacks as text, dates and bytes as they are."""
    if isinstance(value, Decimal):
        return float(value)
    known = value is None or isinstance(value, (str, bool, int, float, bytes, date, Mapping, list, tuple))
    return value if known else str(value)


def _bind(source: RowSource, signature: Signature, mapping: Mapping[str, str]) -> list[tuple[str, Field]] | None:
    """The input column of each field of the signature, None where the model declares none."""
    inputs = signature.inputs
    if not inputs:
        return None
    given = {model: name for name, model in mapping.items()}
    if signature.columns is None:
        return [(_only(source, given), field) for field in inputs[:1]]
    for model in given:
        if model not in signature.columns:
            raise InputInvalid(
                f"the model has no column `{model}`; it has {_listed(signature.columns)}",
                remedy=f"--column {given[model]}={_nearest(model, signature.columns)}",
            )
    bound = [(given.get(str(field.name), str(field.name)), field) for field in inputs]
    for name, field in bound:
        if field.required:
            _require(name, source, str(field.name))
    return bound


def _only(source: RowSource, given: Mapping[str, str]) -> str:
    """The one column for a model whose input has no name; a mapping to any name picks it."""
    names = tuple(given.values()) or source.columns
    if len(names) != 1 and source.columns:
        raise InputInvalid(
            f"the model takes one unnamed value a row, and {source.name} has {_listed(source.columns)}",
            remedy=f"--column {source.columns[0]}=input",
        )
    return names[0] if names else ""


def _require(name: str, source: RowSource, model: str) -> None:
    lacking = next((part for part in source.parts if part.columns and name not in part.columns), None)
    if lacking is None:
        return
    nearest = _nearest(name, lacking.columns)
    raise InputInvalid(
        f"{lacking.name} has no column `{name}`; it has {_listed(lacking.columns)}",
        remedy=f"--column {nearest}={model or 'COLUMN'}" + (f", if `{nearest}` holds it" if model else ""),
    )


def _misfit(where: str, name: str, value: object, error: ValueError) -> Failed:
    expected = error if isinstance(error, Mismatch) else "text in UTF-8"
    cause = f"{where}, column `{name}`: expected {expected}, got {str(value)[:100]!r}"
    return Failed(RowRefused(cause, remedy="correct the value"))


def _nearest(name: str, names: Sequence[str]) -> str:
    """The name most like `name` whatever its case, the first where none is like it."""
    lower = {entry.lower(): entry for entry in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else names[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
