"""Conversion of predictions to output tensors: names, datatypes, shapes and elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any

import numpy as np
import orjson

from likewise.core.errors import ModelFailed, TooManyCells
from likewise.core.json_values import json_form
from likewise.core.signature import Field, Signature
from likewise.wire.cells import Cells
from likewise.wire.oip.datatypes import FLOATS, INTEGERS, integer_bounds
from likewise.wire.oip.declared import OUTPUT, datatype_of, named, only_output
from likewise.wire.oip.inputs import MAX_RANK

_TEXT = frozenset({str, date, datetime})
_BYTES = frozenset({bytes})
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output; `values` are booleans, integers, floats, text or bytes in row-major order, None if missing."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def output_tensors(predictions: object, signature: Signature) -> list[OutputTensor]:
    """One tensor per column of records or of a mapping, else one for all rows; the signature's outputs come first.

    The datatype is the signature's if the values have it, else it is inferred.  Numbers and booleans with missing
    values are FP64.  Ragged, nested or mixed values are BYTES: JSON text, one element per row.  Raises ModelFailed for
    values that JSON cannot represent.
    """
    fields = named(signature.outputs, OUTPUT)
    return [_tensor(name, values, fields.get(name)) for name, values in _columns(predictions, signature).items()]


def unwritable(error: Exception) -> ModelFailed:
    """The error for a prediction that cannot be encoded."""
    return ModelFailed(
        f"the model's predictions cannot be written: {error}",
        remedy="make the model return valid Unicode text, numbers within 64 bits, and plain values",
    )


def _columns(predictions: object, signature: Signature) -> dict[str, list[Any]]:
    if isinstance(predictions, dict):
        return {str(name): values if isinstance(values, list) else [values] for name, values in predictions.items()}
    if not isinstance(predictions, list):
        return {only_output(signature): [predictions]}
    if not predictions:
        return {name: [] for name in named(signature.outputs, OUTPUT) or (OUTPUT,)}
    if all(isinstance(record, dict) for record in predictions):
        sent = dict.fromkeys(name for record in predictions for name in record)
        declared = [name for name in named(signature.outputs, OUTPUT) if name in sent]
        if names := dict.fromkeys([*declared, *sent]):
            _check_cells(predictions, list(map(str, names)))
            return {str(name): [record.get(name) for record in predictions] for name in names}
    return {only_output(signature): predictions}


def _check_cells(records: list[dict[Any, Any]], names: list[str]) -> None:
    """ModelFailed if a table of records with different keys would be mostly empty."""
    try:
        Cells().table(len(records), names, sum(map(len, records)), "a tensor for each key")
    except TooManyCells as error:
        raise unwritable(error) from error


def _tensor(name: str, values: list[Any], field: Field | None) -> OutputTensor:
    shape, leaves = rectangle(values)
    declared = None if field is None else datatype_of(field)
    present = [leaf for leaf in leaves if not _missing(leaf)]
    types = frozenset(map(type, present))
    has_missing = len(present) < len(leaves)
    if declared is None or not _fits(declared, types, present, has_missing):
        declared = _inferred(types, present, has_missing)
    if declared is None:
        return OutputTensor(name, "BYTES", (len(values),), [_json_text(value) for value in values])
    return OutputTensor(name, declared, shape, _plain(declared, leaves))


def rectangle(values: list[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists, and their elements, which are lists if the nesting is ragged or too deep."""
    shape, level = [len(values)], values
    while level and len(shape) < MAX_RANK and all(type(part) is list for part in level):
        if len({len(part) for part in level}) > 1:
            break
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def _fits(datatype: str, types: frozenset[type], present: Sequence[Any], has_missing: bool) -> bool:
    if datatype == "BYTES":
        return _text_or_bytes(types)
    if datatype in FLOATS:
        limit = float(np.finfo(FLOATS[datatype]).max)
        return types <= _NUMBERS and all(abs(value) <= limit or abs(value) == np.inf for value in present)
    if has_missing:
        return False
    return types <= {bool} if datatype == "BOOL" else types <= {int} and _within(datatype, present)


def _inferred(types: frozenset[type], present: Sequence[Any], has_missing: bool) -> str | None:
    """The datatype that fits the values, or None."""
    if types and _text_or_bytes(types):
        return "BYTES"
    if types == {bool}:
        return "FP64" if has_missing else "BOOL"
    if types == {int} and not has_missing:
        return next((datatype for datatype in ("INT64", "UINT64") if _within(datatype, present)), None)
    return "FP64" if types <= _NUMBERS else None


def _text_or_bytes(types: frozenset[type]) -> bool:
    """Whether the elements are all text or all bytes; a tensor cannot mark individual elements."""
    return types <= _TEXT or types <= _BYTES


def _within(datatype: str, values: Sequence[int]) -> bool:
    low, high = integer_bounds(datatype)
    return all(low <= value <= high for value in values)


def _plain(datatype: str, leaves: Sequence[Any]) -> list[Any]:
    if datatype in INTEGERS or datatype == "BOOL":
        return list(leaves)
    convert = _bytes_element if datatype == "BYTES" else float
    try:
        return [None if _missing(leaf) else convert(leaf) for leaf in leaves]
    except OverflowError as error:
        raise unwritable(error) from error


def _bytes_element(leaf: Any) -> str | bytes:
    return leaf.isoformat() if isinstance(leaf, date) else leaf


def _missing(leaf: object) -> bool:
    return leaf is None or leaf != leaf  # pandas uses NaN for missing strings as well


def _json_text(value: object) -> str | None:
    if _missing(value):
        return None
    try:
        return orjson.dumps(value, default=json_form, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise unwritable(error) from error
