"""Casts of tensor rows, as nested lists, to the signature's dtype and shape."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast as typed

from likewise.core.casts import Cast, Mismatch, Source, integer_within, rounding, to_boolean, to_string
from likewise.core.signature import Field


def shape_of(field: Field) -> tuple[int, ...]:
    """The declared shape, -1 for variable dimensions.  Source: mlflow/types/schema.py, `TensorSpec.to_dict`."""
    return tuple(typed(Sequence[int], _spec(field).get("shape") or (-1,)))


def dtype_of(field: Field) -> str:
    """The declared dtype as numpy names it."""
    return str(_spec(field).get("dtype", "object"))


def row_cast(field: Field, source: Source) -> Cast:
    """The cast of one row's values to the dtype and the shape without its first dimension.

    A flat list is reshaped if the shape has several fixed dimensions, as MLflow does for DataFrames.  Raises Mismatch.
    """
    dims = shape_of(field)[1:]
    leaf = _leaf(dtype_of(field), source)
    if leaf is None:
        return lambda value: value

    def cast(value: object) -> object:
        return _fold(value, dims, leaf)

    return cast


def _fold(value: object, dims: tuple[int, ...], leaf: Cast) -> object:
    if not dims:
        if isinstance(value, (list, tuple, dict)):
            raise Mismatch("a single value")
        return leaf(value)
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        value = [value]
    if (
        len(dims) > 1
        and -1 not in dims
        and len(value) == math.prod(dims)
        and not any(isinstance(part, (list, tuple)) for part in value)
    ):
        step = math.prod(dims[1:])
        value = [value[i : i + step] for i in range(0, len(value), step)]
    if dims[0] not in (-1, len(value)):
        raise Mismatch(f"a list of {dims[0]}")
    parts = [_fold(part, dims[1:], leaf) for part in value]
    if len(dims) > 1 and len({len(typed(list[object], part)) for part in parts}) > 1:
        raise Mismatch("lists of equal length")
    return parts


def _leaf(dtype: str, source: Source) -> Cast | None:
    """The cast to a numpy dtype; None if it accepts any object."""
    if dtype == "bool":
        return to_boolean
    if match := re.fullmatch(r"float(16|32|64)", dtype):
        cast = rounding(int(match[1]), source)
        return lambda value: None if value is None else cast(value)
    if match := re.fullmatch(r"(u?)int(\d+)", dtype):
        bits = int(match[2])
        return integer_within(0, 2**bits - 1) if match[1] else integer_within(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return to_string if dtype.startswith(("str", "<U", "U")) else None


def _spec(field: Field) -> Mapping[str, object]:
    spec = field.raw.get("tensor-spec")
    return spec if isinstance(spec, Mapping) else {}
