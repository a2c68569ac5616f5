"""Predictions to output tensors: their names, datatypes, shapes and elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any

import numpy as np
import orjson

from likewise.core.errors import ModelFailed
from likewise.core.signature import Field, Signature
from likewise.wire.encode import plain
from likewise.wire.oip.datatypes import FLOATS, INTEGERS, integer_bounds
from likewise.wire.oip.declared import OUTPUT, datatype_of, named, only_output
from likewise.wire.oip.inputs import MAX_RANK

_TEXT = frozenset({str, date, datetime})
_BYTES = frozenset({bytes})
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output; values are in row-major order: booleans, integers, floats, text or bytes, None where missing."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def output_tensors(predictions: object, signature: Signature) -> list[OutputTensor]:
    """One tensor a column of records or of a mapping, else one for all rows.

    The datatype is the signature's where the values are of it, else theirs.  Numbers and booleans with a missing one
    among them are FP64.  What is ragged, nested or mixed is BYTES: JSON text, one element a row.  ModelFailed for what
    JSON cannot hold.
    """
    fields = named(signature.outputs, OUTPUT)
    return [_tensor(name, values, fields.get(name)) for name, values in _columns(predictions, signature).items()]


def unwritable(error: Exception) -> ModelFailed:
    """A prediction that no answer can hold."""
    return ModelFailed(
        f"the model's predictions cannot be written: {error}",
        remedy="let the model return text in valid Unicode, numbers within 64 bits, and plain values",
    )


def _columns(predictions: object, signature: Signature) -> dict[str, list[Any]]:
    if isinstance(predictions, dict):
        return {str(name): values if isinstance(values, list) else [values] for name, values in predictions.items()}
    if not isinstance(predictions, list):
        return {only_output(signature): [predictions]}
    if not predictions:
        return {name: [] for name in named(signature.outputs, OUTPUT) or (OUTPUT,)}
    if all(isinstance(record, dict) for record in predictions):
        names = dict.fromkeys(name for record in predictions for name in record)
        return {str(name): [record.get(name) for record in predictions] for name in names}
    return {only_output(signature): predictions}


def _tensor(name: str, values: list[Any], field: Field | None) -> OutputTensor:
    shape, leaves = rectangle(values)
    declared = None if field is None else datatype_of(field)
    present = [leaf for leaf in leaves if not _missing(leaf)]
    types = frozenset(map(type, present))
    lacking = len(present) < len(leaves)
    if declared is None or not _fits(declared, types, present, lacking):
        declared = _inferred(types, present, lacking)
    if declared is None:
        return OutputTensor(name, "BYTES", (len(values),), [_json_text(value) for value in values])
    return OutputTensor(name, declared, shape, _plain(declared, leaves))


def rectangle(values: list[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists and their elements; an element is a list where they are ragged or too deep."""
    shape, level = [len(values)], values
    while level and len(shape) < MAX_RANK and all(type(part) is list for part in level):
        if len({len(part) for part in level}) > 1:
            break
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def _fits(datatype: str, types: frozenset[type], present: Sequence[Any], lacking: bool) -> bool:
    if datatype == "BYTES":
        return _one_kind(types)
    if datatype in FLOATS:
        limit = float(np.finfo(FLOATS[datatype]).max)
        return types <= _NUMBERS and all(abs(value) <= limit or abs(value) == np.inf for value in present)
    if lacking:
        return False
    return types <= {bool} if datatype == "BOOL" else types <= {int} and _within(datatype, present)


def _inferred(types: frozenset[type], present: Sequence[Any], lacking: bool) -> str | None:
    """None where no datatype holds the values."""
    if types and _one_kind(types):
        return "BYTES"
    if types == {bool}:
        return "FP64" if lacking else "BOOL"
    if types == {int} and not lacking:
        return next((datatype for datatype in ("INT64", "UINT64") if _within(datatype, present)), None)
    return "FP64" if types <= _NUMBERS else None


def _one_kind(types: frozenset[type]) -> bool:
    """All text or all bytes: one tensor does not say which of its elements are which."""
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
    return leaf is None or leaf != leaf  # NaN is what pandas has for a missing string, too


def _json_text(value: object) -> str | None:
    if _missing(value):
        return None
    try:
        return orjson.dumps(value, default=plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise unwritable(error) from error
