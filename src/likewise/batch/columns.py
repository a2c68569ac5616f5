"""From the input's columns to the model's: names by `--column`, types by the signature."""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from likewise.batch.formats import PREDICTIONS, Source
from likewise.batch.sources import predictions_taken
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.items import Row
from likewise.core.results import Failed
from likewise.core.signature import Field, Signature


class RowMaker:
    """Makes the model's `Row` of an input record.

    The signature's columns are taken, each from the input column that `mapping` (input to model) names or from its
    namesake; without a signature, all columns are. Text of a CSV becomes what the signature says, an empty field the
    empty string where that is a string and None elsewhere.
    """

    def __init__(self, source: Source, signature: Signature, mapping: Mapping[str, str]) -> None:
        self._textual = source.textual
        self._mapping = mapping
        for name in mapping:
            _require(name, source, "")
        self._fields = _bind(source, signature, mapping)

    def __call__(self, record: Mapping[str, object], where: str) -> Row | Failed:
        """The row, or why this record makes none."""
        if PREDICTIONS in record:
            return Failed(predictions_taken(where))
        if self._fields is None:
            return self._whole(record)
        names: list[str] = []
        values: list[object] = []
        for name, field in self._fields:
            if name in record:
                names.append(field.name or "")
                try:
                    values.append(self._value(record[name], field.kind))
                except (ValueError, LookupError):
                    return _misfit(where, name, record[name], field.kind)
            elif field.required:
                cause = f"{where} has no column `{name}`"
                return Failed(RowRefused(cause, remedy=f"give the row a value for `{name}`"))
        unnamed = any(field.name is None for _, field in self._fields)
        return Row(None if unnamed else tuple(names), tuple(values))

    def _whole(self, record: Mapping[str, object]) -> Row:
        """All columns; one whose name `mapping` gives to another is left out."""
        given = set(self._mapping.values())
        names = [name for name in record if name in self._mapping or name not in given]
        return Row(
            tuple(self._mapping.get(name, name) for name in names), tuple(_plain(record[name]) for name in names)
        )

    def _value(self, value: object, kind: str) -> object:
        if kind == "string":
            return value.decode() if isinstance(value, bytes) else _plain(value)
        if isinstance(value, str) and (self._textual or kind in NOT_IN_JSON):
            cast: Callable[[str], object] = CASTS.get(kind, json.loads)
            return None if value == "" else cast(value)
        return _plain(value)


BOOLEANS = {"true": True, "false": False}
CASTS: dict[str, Callable[[str], object]] = {
    "long": int,
    "integer": int,
    "double": float,
    "float": float,
    "boolean": lambda text: BOOLEANS[text.lower()],
    "datetime": datetime.fromisoformat,
    "binary": lambda text: base64.b64decode(text, validate=True),
}
NOT_IN_JSON = frozenset({"datetime", "binary"})  # text in JSON lines too: ISO 8601 and base64, as MLflow reads them


def _plain(value: object) -> object:
    """As an item holds it: a Decimal as double, other types that JSON lacks as text, dates and bytes as they are."""
    if isinstance(value, Decimal):
        return float(value)
    known = value is None or isinstance(value, (str, bool, int, float, bytes, date, Mapping, list, tuple))
    return value if known else str(value)


def _bind(source: Source, signature: Signature, mapping: Mapping[str, str]) -> list[tuple[str, Field]] | None:
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


def _only(source: Source, given: Mapping[str, str]) -> str:
    """The one column for a model whose input has no name; a mapping to any name picks it."""
    names = tuple(given.values()) or source.columns
    if len(names) != 1 and source.columns:
        raise InputInvalid(
            f"the model takes one unnamed value a row, and {source.path} has {_listed(source.columns)}",
            remedy=f"--column {source.columns[0]}=input",
        )
    return names[0] if names else ""


def _require(name: str, source: Source, model: str) -> None:
    if name in source.columns or not source.columns:
        return
    nearest = _nearest(name, source.columns)
    raise InputInvalid(
        f"{source.path} has no column `{name}`; it has {_listed(source.columns)}",
        remedy=f"--column {nearest}={model or 'COLUMN'}" + (f", if `{nearest}` holds it" if model else ""),
    )


def _misfit(where: str, name: str, value: object, kind: str) -> Failed:
    cause = f"{where}, column `{name}`: {str(value)[:100]!r} is no {kind}"
    return Failed(RowRefused(cause, remedy=f"write a {kind}, or leave the field empty where it is not known"))


def _nearest(name: str, names: Sequence[str]) -> str:
    """The name most like `name` whatever its case, the first where none is like it."""
    lower = {entry.lower(): entry for entry in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else names[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
