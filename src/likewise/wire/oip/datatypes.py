"""The protocol's datatypes: conversion of elements from JSON and bytes to plain Python, and back to bytes.

Source: Open Inference Protocol v2, "Tensor Data Types", and its Binary Tensor Data Extension: little-endian, row-major,
one byte per BOOL, and for BYTES each element preceded by its length as a 4-byte unsigned integer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Dtype: TypeAlias = "np.dtype[Any]"
Array: TypeAlias = "np.ndarray[Any, Dtype]"

INTEGERS: dict[str, Dtype] = {
    f"{sign}INT{bits}": np.dtype(f"<{sign.lower() or 'i'}{bits // 8}") for sign in ("", "U") for bits in (8, 16, 32, 64)
}
FLOATS: dict[str, Dtype] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_BF16_BITS = np.dtype("<u2")  # numpy has no bfloat16
FIXED: dict[str, Dtype] = {"BOOL": np.dtype("u1"), **INTEGERS, **FLOATS, "BF16": _BF16_BITS}
DATATYPES = (*FIXED, "BYTES")

_LENGTH = struct.Struct("<I")
_NONE = type(None)
_JSON_TYPES: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool, _NONE}),
    "BYTES": frozenset({str, _NONE}),
    **{name: frozenset({int, float, _NONE}) for name in (*INTEGERS, *FLOATS, "BF16")},
}


class BadElement(ValueError):
    """An element does not have its datatype; has its index in row-major order, and the expected value."""

    def __init__(self, index: int, expected: str) -> None:
        super().__init__(expected)
        self.index = index
        self.expected = expected


def integer_bounds(datatype: str) -> tuple[int, int]:
    """The smallest and largest value of an integer datatype."""
    info = np.iinfo(INTEGERS[datatype])
    return int(info.min), int(info.max)


def min_size(datatype: str, count: int) -> int:
    """The size in bytes of `count` elements; for BYTES the minimum."""
    return count * (FIXED[datatype].itemsize if datatype in FIXED else _LENGTH.size)


def from_binary(datatype: str, data: memoryview, count: int) -> list[Any]:
    """Decode `count` elements of a binary tensor, NaN as None; the size of `data` must match `min_size`.

    Raises BadElement for a BOOL other than 0 and 1, and for BYTES whose lengths do not add up to the size of `data`.
    """
    if datatype == "BYTES":
        return _split_bytes(data, count)
    array: Array = np.frombuffer(data, FIXED[datatype])
    if datatype == "BOOL":
        _refuse_any(array > 1, "0 or 1")
        return list(array.astype(bool).tolist())
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return _with_nulls(array)


def from_json(datatype: str, values: list[Any]) -> list[Any]:
    """Convert the elements of a JSON tensor; floats are rounded to their datatype, null becomes None.

    Raises BadElement.
    """
    accepted = _JSON_TYPES[datatype]
    if not set(map(type, values)) <= accepted:
        wrong = next(i for i, value in enumerate(values) if type(value) not in accepted)
        raise BadElement(wrong, f"a value of datatype {datatype}")
    if datatype in INTEGERS:
        return _whole(datatype, values)
    return values if datatype in ("BOOL", "BYTES") else _rounded(datatype, values)


def to_binary(datatype: str, values: Sequence[Any]) -> bytes:
    """Encode a binary tensor: missing numbers become NaN, missing BYTES empty; text is UTF-8."""
    if datatype == "BYTES":
        encoded = (value.encode() if isinstance(value, str) else value or b"" for value in values)
        return b"".join(part for element in encoded for part in (_LENGTH.pack(len(element)), element))
    if datatype in FLOATS:
        values = [np.nan if value is None else value for value in values]
    return np.array(values, FIXED[datatype]).tobytes()


def _split_bytes(data: memoryview, count: int) -> list[bytes]:
    elements, at = [], 0
    for index in range(count):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        if at > len(data):
            raise BadElement(index, "a 4-byte length followed by that many bytes")
        elements.append(bytes(data[start:at]))
    if at < len(data):
        raise BadElement(count, f"the end of the tensor, but {len(data) - at} bytes follow")
    return elements


def _whole(datatype: str, values: list[Any]) -> list[int | None]:
    low, high = integer_bounds(datatype)
    for index, value in enumerate(values):
        if value is not None and not (low <= value <= high and value == int(value)):
            raise BadElement(index, f"a whole number from {low} to {high}")
    return [None if value is None else int(value) for value in values]


def _rounded(datatype: str, values: list[Any]) -> list[float | None]:
    exact: Array = np.array([_double(i, value, datatype) for i, value in enumerate(values)], np.float64)
    with np.errstate(over="ignore"):
        array: Array = exact.astype(FLOATS.get(datatype, np.dtype(np.float32)))
    if datatype == "BF16":
        array = _to_bf16(array)
    _refuse_any(np.isinf(array) & ~np.isinf(exact), f"a number within the range of {datatype}")
    return _with_nulls(array)


def _double(index: int, value: float | None, datatype: str) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError as error:
        raise BadElement(index, f"a number within the range of {datatype}") from error


def _to_bf16(array: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; a bfloat16 is the upper half of a float32's bits."""
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _with_nulls(array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    if array.dtype.kind == "f" and np.isnan(array).any():
        return [None if value != value else value for value in values]
    return values


def _refuse_any(wrong: Array, expected: str) -> None:
    if wrong.any():
        raise BadElement(int(wrong.argmax()), expected)
