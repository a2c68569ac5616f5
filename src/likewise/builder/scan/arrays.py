"""How many bytes an array takes that joblib stores between the operations of a pickle, or numpy in a `.npy` file.

What is not certain is rejected: an array that a loader would read differently could hide a pickle.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

_FIXED = re.compile(r"[biufc]\d{1,2}|[mM]8|b1|\?")
_FLEXIBLE = re.compile(r"[SUV]\d{1,12}")
HAS_OBJECTS = 1  # bit of a dtype's flags


class Unclear(Exception):
    """The size of an array cannot be determined."""


class _Dtype(Protocol):
    """A `numpy.dtype` call in a pickle: `likewise.builder.scan.machine.Made`."""

    arguments: Any
    state: Any


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def holds_objects(state: Mapping[str, Any]) -> bool:
    """Whether the wrapped array contains Python objects, which joblib stores as another pickle."""
    kind, flags, _ = _dtype(state)
    if kind == "O8":
        return True
    if flags & HAS_OBJECTS:
        raise Unclear("an array's type contains Python objects")
    return False


def gap(state: Mapping[str, Any], stream: _Stream) -> int:
    """The bytes from the stream's position to the end of the wrapped array, with its padding."""
    kind, _, stored = _dtype(state)
    shape = state.get("shape")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise Unclear("an array's shape is not clear")
    if _FIXED.fullmatch(kind) and stored == -1:
        width = np.dtype(kind).itemsize
    elif _FLEXIBLE.fullmatch(kind) and stored >= 0:
        width = stored
    else:
        raise Unclear(f"an array's type is not clear: {kind[:40]}")
    padding = 0
    if state.get("numpy_array_alignment_bytes") is not None:
        padding = 1 + int.from_bytes(stream.read(1), "little")
    return padding + math.prod(shape) * width


def objects_in_npy(head: bytes) -> int | None:
    """The position of the pickle in a `.npy` file; None if its array contains no Python objects.

    head: the file's first bytes, at least the complete header.  Raises Unclear.
    """
    wide = head[6:7] != b"\x01"
    start = 12 if wide else 10
    end = start + int.from_bytes(head[8:start], "little")
    if end > len(head):
        raise Unclear("the header of the array is too long")
    try:
        header = ast.literal_eval(head[start:end].decode("latin-1").strip())
        return end if np.lib.format.descr_to_dtype(header["descr"]).hasobject else None
    except Exception as error:
        raise Unclear(f"the header of the array cannot be read: {type(error).__name__}") from error


def _dtype(state: Mapping[str, Any]) -> tuple[str, int, int]:
    """The type's code such as `f8`, its flags, and its width in bytes (-1 if the code determines it)."""
    dtype: _Dtype | None = state.get("dtype")
    arguments, detail = getattr(dtype, "arguments", None), getattr(dtype, "state", None)
    if not isinstance(arguments, tuple) or not arguments or not isinstance(arguments[0], str):
        raise Unclear("an array's type is not clear")
    if not isinstance(detail, tuple) or len(detail) < 8 or detail[2] is not None:
        raise Unclear("an array's type is not clear")
    width, flags = detail[5], detail[7]
    if type(width) is not int or type(flags) is not int:
        raise Unclear("an array's type is not clear")
    return arguments[0], flags, width
